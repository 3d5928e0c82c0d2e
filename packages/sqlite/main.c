/* Runs SQL statements on a database and prints rows as SQLite's own shell does: `a|b|c`. */
#include <sqlite3.h>
#include <stdio.h>

static int row(void *unused, int columns, char **values, char **names) {
  (void)unused;
  (void)names;
  for (int i = 0; i < columns; i++)
    printf("%s%s", i ? "|" : "", values[i] ? values[i] : "");
  putchar('\n');
  return 0;
}

int main(int argc, char **argv) {
  if (argc != 3) {
    fprintf(stderr, "usage: sqlite FILE STATEMENTS\n");
    return 2;
  }
  sqlite3 *db;
  char *error = NULL;
  if (sqlite3_open(argv[1], &db) != SQLITE_OK || sqlite3_exec(db, argv[2], row, NULL, &error) != SQLITE_OK) {
    fprintf(stderr, "sqlite: %s\n", error ? error : sqlite3_errmsg(db));
    return 1;
  }
  return sqlite3_close(db) == SQLITE_OK && fflush(stdout) == 0 ? 0 : 1;
}
