/* Many managers, one after the other and beside each other: what they take, they give back. */
#include "check.h"
#include "libsds.h"

#include <dirent.h>

static int count(const char *folder) {
    DIR *all = opendir(folder);
    CHECK(all != NULL);
    int found = 0;
    while (readdir(all) != NULL)
        found++;
    closedir(all);
    return found;
}

static struct told results = TOLD_INITIALIZER;

static void *start(void) {
    int before = results.calls;
    void *manager = SdsNewReliabilityManager(on_result, &results);
    CHECK(manager != NULL);
    CHECK(result(&results, before) == RET_OK);
    return manager;
}

static void end(void *manager) {
    int before = results.calls;
    CHECK(SdsCleanupReliabilityManager(manager, on_result, &results) == RET_OK);
    CHECK(result(&results, before) == RET_OK);
}

int main(void) {
    /* Whatever is made once and for all is made by the first. */
    end(start());
    int threads = count("/proc/self/task"), descriptors = count("/proc/self/fd");
    for (int round = 0; round < 100; round++)
        end(start());
    void *beside[64];
    for (int at = 0; at < 64; at++)
        beside[at] = start();
    CHECK(count("/proc/self/task") == threads + 64);
    for (int at = 0; at < 64; at++)
        end(beside[at]);
    CHECK(count("/proc/self/task") == threads);
    CHECK(count("/proc/self/fd") == descriptors);
    return 0;
}
