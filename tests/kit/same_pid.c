/* One process number for a process and its forks, as clones of a machine have it. Loaded with LD_PRELOAD.
 *
 * OpenSSL knows a fork by another number, and then gives its generators new seeds by itself; a clone it cannot know.
 */
#include <unistd.h>

pid_t getpid(void)
{
    return 4711;
}
