/* Two participants that exchange messages through the field's interface. */
#include "check.h"
#include "libsds.h"

struct side {
    void *manager;
    struct told results;
    struct told events;
};

static struct side alice = {.results = TOLD_INITIALIZER, .events = TOLD_INITIALIZER};
static struct side bob = {.results = TOLD_INITIALIZER, .events = TOLD_INITIALIZER};

/* Runs a call and waits for its result, which must be RET_OK. */
#define OK(side, call)                              \
    do {                                            \
        int before = (side).results.calls;          \
        CHECK((call) == RET_OK);                    \
        int status = result(&(side).results, before); \
        if (status != RET_OK)                       \
            fprintf(stderr, "%s\n", (side).results.text); \
        CHECK(status == RET_OK);                    \
    } while (0)

static unsigned char wire[1 << 16];

/* Wraps content; the message's length. */
static size_t wrap(struct side *side, const char *id, const char *content) {
    OK(*side, SdsWrapOutgoingMessage(side->manager, (void *)content, strlen(content), id, "room",
                                     on_result, &side->results));
    size_t len = 0;
    for (char *at = side->results.text; *at != 0; len++) {
        char *end;
        wire[len] = (unsigned char)strtol(at, &end, 10);
        CHECK(end != at);
        at = *end == ',' ? end + 1 : end;
    }
    return len;
}

static void unwrap(struct side *side, size_t len) {
    OK(*side, SdsUnwrapReceivedMessage(side->manager, wire, len, on_result, &side->results));
}

static void hint(const char *id, char **hint, size_t *len, void *data) {
    CHECK(strcmp(data, "hints") == 0);
    *len = strlen(id) + 5;
    *hint = malloc(*len);
    memcpy(*hint, "hint-", 5);
    memcpy(*hint + 5, id, *len - 5);
}

static void start(struct side *side) {
    int before = side->results.calls;
    side->manager = SdsNewReliabilityManager(on_result, &side->results);
    CHECK(side->manager != NULL);
    CHECK(result(&side->results, before) == RET_OK);
    SdsSetEventCallback(side->manager, on_event, &side->events);
    SdsSetRetrievalHintProvider(side->manager, hint, "hints");
}

int main(void) {
    start(&alice);
    start(&bob);

    /* In order. */
    size_t len = wrap(&alice, "m1", "hello");
    unwrap(&bob, len);
    CHECK(strcmp(bob.results.text, "{\"message\":[104,101,108,108,111],\"channelId\":\"room\","
                                   "\"missingDeps\":[]}") == 0);
    event(&bob.events,
          "{\"eventType\":\"message_ready\",\"messageId\":\"m1\",\"channelId\":\"room\"}");

    /* The same again is given again, and told once. */
    unwrap(&bob, len);
    CHECK(strstr(bob.results.text, "[104,101,108,108,111]") != NULL);
    CHECK(bob.events.events == 1);

    /* An answer acknowledges. */
    len = wrap(&bob, "m2", "hello to you");
    unwrap(&alice, len);
    event(&alice.events,
          "{\"eventType\":\"message_sent\",\"messageId\":\"m1\",\"channelId\":\"room\"}");

    /* m3 is lost: m4 waits for it, and says how it is found. */
    static unsigned char lost[sizeof wire];
    size_t lost_len = wrap(&alice, "m3", "lost");
    memcpy(lost, wire, lost_len);
    len = wrap(&alice, "m4", "depends on it");
    unwrap(&bob, len);
    CHECK(strstr(bob.results.text, "\"missingDeps\":[{\"messageId\":\"m3\",\"retrievalHint\":"
                                   "\"aGludC1tMw==\"}]") != NULL);
    event(&bob.events, "{\"eventType\":\"missing_dependencies\",\"messageId\":\"m4\","
                       "\"channelId\":\"room\",\"missingDeps\":[{\"messageId\":\"m3\"");
    CHECK(strstr(bob.events.all, "\"messageId\":\"m4\",\"channelId\":\"room\"}") == NULL);
    memcpy(wire, lost, lost_len);
    unwrap(&bob, lost_len);
    event(&bob.events, "message_ready\",\"messageId\":\"m4\"");
    CHECK(strstr(bob.events.all, "message_ready\",\"messageId\":\"m3\"") <
          strstr(bob.events.all, "message_ready\",\"messageId\":\"m4\""));

    /* m5 is lost for good, and said to be met. */
    wrap(&alice, "m5", "lost for good");
    len = wrap(&alice, "m6", "depends on it");
    unwrap(&bob, len);
    char *ids[] = {"m5"};
    OK(bob, SdsMarkDependenciesMet(bob.manager, ids, 1, "room", on_result, &bob.results));
    event(&bob.events, "message_ready\",\"messageId\":\"m6\"");

    /* The same id and content give the message again, other content is refused. */
    CHECK(wrap(&alice, "m6", "depends on it") > 0);
    int before = alice.results.calls;
    CHECK(SdsWrapOutgoingMessage(alice.manager, "x", 1, "m6", "room", on_result, &alice.results) ==
          RET_OK);
    CHECK(result(&alice.results, before) == RET_ERR);
    CHECK(strstr(alice.results.text, "was used before") != NULL);

    OK(bob, SdsRemoveChannel(bob.manager, "room", on_result, &bob.results));
    OK(bob, SdsRemoveChannel(bob.manager, "no such room", on_result, &bob.results));
    OK(bob, SdsResetReliabilityManager(bob.manager, on_result, &bob.results));

    /* With a configuration: sync events, and what nobody acknowledges is offered again. */
    struct side carol = {.results = TOLD_INITIALIZER, .events = TOLD_INITIALIZER};
    before = carol.results.calls;
    carol.manager = SdsNewReliabilityManagerWithConfig(
        "carol", "{\"syncMessageIntervalMs\": 100, \"resendIntervalMs\": 200, \"bloomFilterCapacity\": 100}", on_result,
        &carol.results);
    CHECK(carol.manager != NULL && result(&carol.results, before) == RET_OK);
    SdsSetEventCallback(carol.manager, on_event, &carol.events);
    OK(carol, SdsStartPeriodicTasks(carol.manager, on_result, &carol.results));
    wrap(&carol, "m7", "is anybody there?");
    event(&carol.events, "{\"eventType\":\"periodic_sync\"}");
    event(&carol.events, "{\"eventType\":\"repair_ready\",\"channelId\":\"room\",\"message\":\"");

    /* Without the tasks nobody is offered anything again, so nothing is given up: an acknowledgement
     * that comes after all attempts would have been used up is told. */
    struct side dave = {.results = TOLD_INITIALIZER, .events = TOLD_INITIALIZER};
    before = dave.results.calls;
    dave.manager = SdsNewReliabilityManagerWithConfig(
        "", "{\"resendIntervalMs\": 50, \"maxResendAttempts\": 1, \"bloomFilterCapacity\": 100}", on_result, &dave.results);
    CHECK(dave.manager != NULL && result(&dave.results, before) == RET_OK);
    SdsSetEventCallback(dave.manager, on_event, &dave.events);
    len = wrap(&dave, "m8", "will anybody answer?");
    unwrap(&alice, len);
    struct timespec pause = {.tv_nsec = 400 * 1000 * 1000};
    nanosleep(&pause, NULL);
    len = wrap(&dave, "m9", "not yet");
    unwrap(&alice, len);
    len = wrap(&alice, "a8", "I heard you");
    unwrap(&dave, len);
    event(&dave.events, "message_sent\",\"messageId\":\"m8\"");
    CHECK(strstr(dave.events.all, "repair_ready") == NULL);

    /* With them it is offered again, and an acknowledgement after the last time is told as well. */
    OK(dave, SdsStartPeriodicTasks(dave.manager, on_result, &dave.results));
    len = wrap(&dave, "m10", "and now?");
    unwrap(&alice, len);
    event(&dave.events, "repair_ready");
    nanosleep(&pause, NULL);
    CHECK(strstr(dave.events.all, "message_sent\",\"messageId\":\"m10\"") == NULL);
    len = wrap(&alice, "a9", "again");
    unwrap(&dave, len);
    event(&dave.events, "message_sent\",\"messageId\":\"m10\"");

    /* What waits is here, and is not missing. */
    struct side gina = {.results = TOLD_INITIALIZER, .events = TOLD_INITIALIZER};
    struct side hank = {.results = TOLD_INITIALIZER, .events = TOLD_INITIALIZER};
    start(&gina);
    start(&hank);
    wrap(&gina, "g1", "lost");
    len = wrap(&gina, "g2", "waits for it");
    unwrap(&hank, len);
    len = wrap(&gina, "g3", "waits for both");
    unwrap(&hank, len);
    CHECK(strstr(hank.results.text, "{\"messageId\":\"g1\"") != NULL);
    CHECK(strstr(hank.results.text, "{\"messageId\":\"g2\"") == NULL);

    /* Hints go along with whatever is cited: also with what came late, and nobody has cited. */
    struct side jan = {.results = TOLD_INITIALIZER, .events = TOLD_INITIALIZER};
    before = jan.results.calls;
    jan.manager = SdsNewReliabilityManagerWithConfig("", "{\"maxCausalHistory\": 1}", on_result,
                                                     &jan.results);
    CHECK(jan.manager != NULL && result(&jan.results, before) == RET_OK);
    SdsSetRetrievalHintProvider(jan.manager, hint, "hints");
    OK(gina, SdsResetReliabilityManager(gina.manager, on_result, &gina.results));
    OK(hank, SdsResetReliabilityManager(hank.manager, on_result, &hank.results));
    static unsigned char late[sizeof wire];
    size_t late_len = wrap(&gina, "a1", "said before j1, heard after it");
    memcpy(late, wire, late_len);
    wrap(&jan, "j1", "said in between");
    memcpy(wire, late, late_len);
    unwrap(&jan, late_len);
    len = wrap(&jan, "j2", "depends on both");
    unwrap(&hank, len);
    CHECK(strstr(hank.results.text,
                 "{\"messageId\":\"a1\",\"retrievalHint\":\"aGludC1hMQ==\"}") != NULL);

    before = carol.results.calls;
    CHECK(SdsNewReliabilityManagerWithConfig("x", "{\"maxCausalHistory\": 0}", on_result,
                                             &carol.results) == NULL);
    CHECK(result(&carol.results, before) == RET_ERR);

    OK(alice, SdsCleanupReliabilityManager(alice.manager, on_result, &alice.results));
    OK(bob, SdsCleanupReliabilityManager(bob.manager, on_result, &bob.results));
    OK(gina, SdsCleanupReliabilityManager(gina.manager, on_result, &gina.results));
    OK(hank, SdsCleanupReliabilityManager(hank.manager, on_result, &hank.results));
    OK(jan, SdsCleanupReliabilityManager(jan.manager, on_result, &jan.results));
    OK(dave, SdsCleanupReliabilityManager(dave.manager, on_result, &dave.results));
    OK(carol, SdsCleanupReliabilityManager(carol.manager, on_result, &carol.results));
    return 0;
}
