/* Another resolver for one process, by LD_PRELOAD: names below ".drill.test" (RFC 6761 keeps ".test" free) have the address that the
 * file DRILL_NAMES holds, and none while there is no such file. All other names are looked up as ever.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char OURS[] = ".drill.test";

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **found)
{
    int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **) = dlsym(RTLD_NEXT, "getaddrinfo");
    size_t length = node ? strlen(node) : 0, end = sizeof OURS - 1;
    const char *path = getenv("DRILL_NAMES");
    char address[64] = "";
    FILE *file;

    if (!path || length <= end || strcmp(node + length - end, OURS))
        return real(node, service, hints, found);
    file = fopen(path, "r");
    if (!file)
        return EAI_NONAME;
    if (!fgets(address, sizeof address, file))
        address[0] = 0;
    fclose(file);
    return real(address, service, hints, found);
}
