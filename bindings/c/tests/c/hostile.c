/* Everything that must not end a program. */
#include "check.h"
#include "libsds.h"

static struct told told = TOLD_INITIALIZER;

/* A call that is accepted and then refused by the manager. */
static void refused(int returned, int before) {
    CHECK(returned == RET_OK);
    CHECK(result(&told, before) == RET_ERR);
    CHECK(strlen(told.text) > 10);
}

static void end_itself(int status, const char *text, size_t len, void *manager) {
    (void)text;
    (void)len;
    CHECK(status == RET_OK);
    /* From the manager's own thread. */
    CHECK(SdsCleanupReliabilityManager(*(void **)manager, on_result, &told) == RET_OK);
}

int main(void) {
    /* Without a callback, and without a manager. */
    CHECK(SdsNewReliabilityManager(NULL, NULL) == NULL);
    CHECK(SdsStartPeriodicTasks(NULL, NULL, NULL) == RET_MISSING_CALLBACK);
    int before = told.calls;
    CHECK(SdsStartPeriodicTasks(NULL, on_result, &told) == RET_ERR);
    CHECK(told.calls == before + 1 && strstr(told.text, "no such manager") != NULL);
    CHECK(SdsStartPeriodicTasks((void *)(size_t)0xdeadbeef, on_result, &told) == RET_ERR);
    SdsSetEventCallback((void *)(size_t)16, on_event, NULL);
    SdsSetRetrievalHintProvider(NULL, NULL, NULL);

    before = told.calls;
    void *manager = SdsNewReliabilityManager(on_result, &told);
    CHECK(result(&told, before) == RET_OK);

    /* Null pointers and absurd lengths. */
    CHECK(SdsWrapOutgoingMessage(manager, NULL, 5, "m", "c", on_result, &told) == RET_ERR);
    CHECK(SdsWrapOutgoingMessage(manager, "x", 1, NULL, "c", on_result, &told) == RET_ERR);
    CHECK(SdsWrapOutgoingMessage(manager, "x", 1, "m", NULL, on_result, &told) == RET_ERR);
    CHECK(SdsWrapOutgoingMessage(manager, "x", (size_t)-1, "m", "c", on_result, &told) == RET_ERR);
    CHECK(SdsWrapOutgoingMessage(manager, "x", 1, "m", "c", NULL, NULL) == RET_MISSING_CALLBACK);
    CHECK(SdsUnwrapReceivedMessage(manager, NULL, 1, on_result, &told) == RET_ERR);
    CHECK(SdsMarkDependenciesMet(manager, NULL, 3, "c", on_result, &told) == RET_ERR);
    char *ids[] = {"m1", NULL};
    CHECK(SdsMarkDependenciesMet(manager, ids, 2, "c", on_result, &told) == RET_ERR);
    CHECK(SdsRemoveChannel(manager, NULL, on_result, &told) == RET_ERR);

    /* What the manager refuses. */
    before = told.calls;
    refused(SdsWrapOutgoingMessage(manager, "", 0, "m", "c", on_result, &told), before);
    before = told.calls;
    refused(SdsWrapOutgoingMessage(manager, "x", 1, "", "c", on_result, &told), before);
    before = told.calls;
    refused(SdsWrapOutgoingMessage(manager, "x", 1, "m", "\xff", on_result, &told), before);
    before = told.calls;
    refused(SdsMarkDependenciesMet(manager, ids, 1, "no such channel", on_result, &told), before);

    /* The 21 bytes that end programs with the ancestor: a Lamport time of 2^63. */
    unsigned char deadly[] = {0x0a, 1, 'm', 0x10, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
                              0x80, 0x80, 0x80, 0x01, 0x22, 1,   'c',  0x2a, 0,    0x32, 0};
    CHECK(sizeof deadly == 21);
    before = told.calls;
    refused(SdsUnwrapReceivedMessage(manager, deadly, sizeof deadly, on_result, &told), before);

    /* Noise of all lengths. */
    unsigned char noise[300];
    unsigned state = 1;
    for (int round = 0; round < 3000; round++) {
        size_t len = (size_t)round % sizeof noise;
        for (size_t at = 0; at < len; at++) {
            state = state * 1664525u + 1013904223u;
            noise[at] = (unsigned char)(state >> 24);
        }
        if (len > 1 && round % 2 == 0) {
            noise[0] = 0x0a;
            noise[1] = 1;
        }
        before = told.calls;
        CHECK(SdsUnwrapReceivedMessage(manager, noise, len, on_result, &told) == RET_OK);
        result(&told, before);
    }

    /* Messages of ever new channels make some channels, and then no more. */
    int made = 0;
    for (int round = 0; round < 2000; round++) {
        char channel[8];
        snprintf(channel, sizeof channel, "%05d", round);
        unsigned char message[] = {0x0a, 1, 'm', 0x10, 1, 0x22, 5, 0, 0, 0, 0, 0,
                                   0x2a, 1, 'x', 0x32, 0};
        memcpy(message + 7, channel, 5);
        before = told.calls;
        CHECK(SdsUnwrapReceivedMessage(manager, message, sizeof message, on_result, &told) ==
              RET_OK);
        if (result(&told, before) == RET_OK)
            made++;
    }
    CHECK(made == 1024);
    CHECK(strstr(told.text, "1024 channels") != NULL);

    /* A manager that is gone is gone; many may be there; one may end itself. */
    before = told.calls;
    CHECK(SdsCleanupReliabilityManager(manager, on_result, &told) == RET_OK);
    CHECK(result(&told, before) == RET_OK);
    CHECK(SdsCleanupReliabilityManager(manager, on_result, &told) == RET_ERR);
    CHECK(SdsStartPeriodicTasks(manager, on_result, &told) == RET_ERR);

    void *many[100];
    for (int at = 0; at < 100; at++) {
        before = told.calls;
        many[at] = SdsNewReliabilityManager(on_result, &told);
        CHECK(many[at] != NULL && result(&told, before) == RET_OK);
    }
    before = told.calls;
    CHECK(SdsStartPeriodicTasks(many[0], end_itself, &many[0]) == RET_OK);
    CHECK(result(&told, before) == RET_OK);
    CHECK(SdsStartPeriodicTasks(many[0], on_result, &told) == RET_ERR);
    for (int at = 1; at < 100; at++)
        CHECK(SdsCleanupReliabilityManager(many[at], on_result, &told) == RET_OK);
    return 0;
}
