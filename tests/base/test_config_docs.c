// docs/config.md is what the program prints: TV_CONFIG_DOC is its path. With an argument, the page is written there.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/config.h"

static char *read_page(const char *path)
{
    char *text = NULL;
    size_t bytes = 0;
    int c;
    FILE *file = fopen(path, "rb"), *copy = open_memstream(&text, &bytes);
    while (file && copy && (c = getc(file)) != EOF)
        putc(c, copy);
    if (copy)
        fclose(copy);
    if (file)
        fclose(file);
    return text;
}

// Number of the first line in which the two texts differ.
static int first_difference(const char *a, const char *b)
{
    int line = 1;
    for (; *a && *a == *b; a++, b++)
        line += *a == '\n';
    return line;
}

static int write_page(const char *path)
{
    FILE *file = fopen(path, "wb");
    if (!file) {
        perror(path);
        return 1;
    }
    tv_config_print_markdown(file);
    return fclose(file) != 0;
}

int main(int argc, char **argv)
{
    char *printed = NULL;
    size_t bytes = 0;
    if (argc == 2)
        return write_page(argv[1]);
    FILE *stream = open_memstream(&printed, &bytes);
    if (!stream)
        return 1;
    tv_config_print_markdown(stream);
    fclose(stream);
    char *page = read_page(TV_CONFIG_DOC);
    int same = page && strcmp(page, printed) == 0;
    if (!same)
        printf("%s differs from the schema table, first in line %d; write it anew: %s %s\n", TV_CONFIG_DOC,
               page ? first_difference(page, printed) : 0, argv[0], TV_CONFIG_DOC);
    free(page);
    free(printed);
    return !same;
}
