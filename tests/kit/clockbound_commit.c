/* Commits the second argument to the first, both as hexadecimal digits, and prints the page as it is at the fence between
 * the odd control word and the other stores, and as it is at the end. */
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

static void *whole;
static void print_page(void)
{
    for (size_t i = 0; i < 104; i++)
        printf("%02x", ((unsigned char *)whole)[i]);
    printf("\n");
}
#undef atomic_thread_fence
#define atomic_thread_fence(order) print_page()
#include "seqlock.h"

static void parse(const char *text, void *bytes)
{
    for (size_t i = 0; i < strlen(text) / 2; i++) {
        unsigned byte;
        sscanf(text + 2 * i, "%2x", &byte);
        ((unsigned char *)bytes)[i] = (unsigned char)byte;
    }
}

int main(int count, char **words)
{
    static page_word page[16];
    uint64_t contents[16] = {0};
    if (count != 3)
        return 2;
    whole = page;
    parse(words[1], page);
    parse(words[2], contents);
    unsigned generation = clockbound_commit(page, contents, strlen(words[2]) / 16);
    print_page();
    printf("%u\n", generation);
    return 0;
}
