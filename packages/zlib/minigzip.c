/* Compresses stdin to stdout as gzip does; with -d, decompresses. */
#include <stdio.h>
#include <string.h>
#include <zlib.h>

static int fail(const char *what) {
  fprintf(stderr, "minigzip: %s\n", what);
  return 1;
}

int main(int argc, char **argv) {
  static unsigned char in[65536], out[65536];
  int decompress = argc > 1 && strcmp(argv[1], "-d") == 0;
  z_stream z;
  memset(&z, 0, sizeof z);
  /* 16 asks for the gzip format instead of zlib's own. */
  int ok = decompress ? inflateInit2(&z, 15 + 16)
                      : deflateInit2(&z, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
  if (ok != Z_OK)
    return fail("cannot begin");
  int state = Z_OK;
  while (state != Z_STREAM_END) {
    if (z.avail_in == 0) {
      z.next_in = in;
      z.avail_in = (unsigned)fread(in, 1, sizeof in, stdin);
      if (decompress && z.avail_in == 0)
        return fail("the input ends early");
    }
    z.next_out = out;
    z.avail_out = sizeof out;
    state = decompress ? inflate(&z, Z_NO_FLUSH) : deflate(&z, feof(stdin) ? Z_FINISH : Z_NO_FLUSH);
    if (state != Z_OK && state != Z_STREAM_END && state != Z_BUF_ERROR)
      return fail(z.msg ? z.msg : "the input is damaged");
    size_t n = sizeof out - z.avail_out;
    if (fwrite(out, 1, n, stdout) != n)
      return fail("cannot write");
  }
  return fflush(stdout) == 0 ? 0 : fail("cannot write");
}
