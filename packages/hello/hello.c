#include <stdio.h>

int main(int argc, char **argv) {
  printf("hello from wasm\n");
  for (int i = 1; i < argc; i++)
    printf("and to %s\n", argv[i]);
  return 0;
}
