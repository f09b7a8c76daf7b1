/* The better interface: two nodes, a network that is a loop, a backend that is an array. */
#include "check.h"
#include "mainstay_sds.h"

_Static_assert(sizeof(mainstay_sds_time) == 16, "as in Rust");
_Static_assert(sizeof(mainstay_sds_config) == 192, "as in Rust");
_Static_assert(sizeof(mainstay_sds_counts) == 104, "as in Rust");
_Static_assert(sizeof(void *) != 8 || sizeof(mainstay_sds_output) == 112, "as in Rust");
_Static_assert(sizeof(void *) != 8 || sizeof(mainstay_sds_backend) == 32, "as in Rust");

static mainstay_sds_time now = {1000, 1750000000000};

/* Changes in memory. */
struct shelf {
    int count;
    int fails;
    size_t lens[1000];
    uint8_t *changes[1000];
    mainstay_sds *node; /* that is called back, which must be refused */
};

static int save(void *data, const char *channel, uint64_t number, int base, const uint8_t *bytes,
                size_t len) {
    struct shelf *shelf = data;
    CHECK(strcmp(channel, "room") == 0 && number > 0);
    if (shelf->node != NULL)
        CHECK(mainstay_sds_leave(shelf->node, "room") == MAINSTAY_SDS_ERR_BUSY);
    if (shelf->fails)
        return 7;
    if (base)
        shelf->count = 0;
    CHECK(shelf->count < 1000);
    shelf->changes[shelf->count] = malloc(len);
    memcpy(shelf->changes[shelf->count], bytes, len);
    shelf->lens[shelf->count++] = len;
    return 0;
}

static int load(void *data, const char *channel,
                void (*give)(void *to, const uint8_t *bytes, size_t len), void *to) {
    struct shelf *shelf = data;
    CHECK(strcmp(channel, "room") == 0);
    for (int at = 0; at < shelf->count; at++)
        give(to, shelf->changes[at], shelf->lens[at]);
    return 0;
}

static int forget(void *data, const char *channel) {
    struct shelf *shelf = data;
    CHECK(strcmp(channel, "room") == 0);
    shelf->count = 0;
    return 0;
}

/* What was seen of a node's outputs. */
struct seen {
    int delivered;
    char last[64];
    char before[16]; /* the message that the last delivered one stands before */
    uint64_t number;
    int acknowledged;
    int missing;
    int not_kept;
    int persist;
};

/* Takes a node's outputs, and gives what it broadcasts to the other, or loses it. */
static void drain(mainstay_sds *from, mainstay_sds *to, struct seen *seen, int lost) {
    mainstay_sds_output out;
    int32_t got;
    while ((got = mainstay_sds_poll(from, now, &out)) > 0) {
        CHECK(strcmp(out.channel, "room") == 0);
        switch (out.kind) {
        case MAINSTAY_SDS_BROADCAST:
            CHECK(out.reason != 0);
            if (to != NULL && !lost)
                CHECK(mainstay_sds_receive(to, now, out.bytes, out.bytes_len) >= 0);
            break;
        case MAINSTAY_SDS_DELIVER:
            seen->delivered++;
            seen->number = out.number;
            CHECK(out.lamport > 0 && out.bytes_len < sizeof seen->last);
            memcpy(seen->last, out.bytes, out.bytes_len);
            seen->last[out.bytes_len] = 0;
            CHECK(out.before_len < sizeof seen->before);
            CHECK((out.before_len > 0) == (out.later > 0));
            memcpy(seen->before, out.before, out.before_len);
            seen->before[out.before_len] = 0;
            break;
        case MAINSTAY_SDS_ACKNOWLEDGED:
            seen->acknowledged++;
            break;
        case MAINSTAY_SDS_MISSING:
            CHECK(out.id_len == 2 && memcmp(out.id, "m2", 2) == 0);
            CHECK(out.bytes_len == 4 && memcmp(out.bytes, "here", 4) == 0);
            seen->missing++;
            break;
        case MAINSTAY_SDS_PERSIST:
            seen->persist++;
            CHECK(mainstay_sds_persisted(from, now, "room", out.number, 1) == 0);
            break;
        case MAINSTAY_SDS_NOT_KEPT:
            seen->not_kept++;
            break;
        default:
            fprintf(stderr, "output of kind %u\n", out.kind);
            exit(1);
        }
    }
    CHECK(got == 0);
}

/* The log as one text. */
static void give(void *to, const uint8_t *id, size_t id_len, const uint8_t *sender,
                 size_t sender_len, uint64_t lamport, const uint8_t *content, size_t content_len) {
    char *text = to;
    CHECK(lamport > 0);
    sprintf(text + strlen(text), "%.*s by %.*s: %.*s\n", (int)id_len, (const char *)id,
            (int)sender_len, (const char *)sender, (int)content_len, (const char *)content);
}

int main(void) {
    struct shelf shelf = {0};
    mainstay_sds_backend backend = {&shelf, save, load, forget};
    mainstay_sds_config config;
    mainstay_sds *alice, *bob;
    struct seen a = {0}, b = {0};

    CHECK(mainstay_sds_config_default(7, &config) == MAINSTAY_SDS_ERR_ARGUMENT);
    CHECK(strlen(mainstay_sds_error()) > 0);
    CHECK(mainstay_sds_config_default(MAINSTAY_SDS_LIP, &config) == 0);
    CHECK(config.history == 1000);
    config.participants = 2;
    CHECK(mainstay_sds_open("alice", 5, NULL, &alice) == 0);
    config.keep = MAINSTAY_SDS_KEEP_RELAXED;
    CHECK(mainstay_sds_join(alice, now, "room", &config) == 0);

    CHECK(mainstay_sds_open("bob", 3, &backend, &bob) == 0);
    shelf.node = bob;
    config.keep = MAINSTAY_SDS_KEEP_DURABLE;
    config.confirm = 1;
    CHECK(mainstay_sds_join(bob, now, "room", &config) == 0);
    CHECK(mainstay_sds_join(bob, now, "room", &config) == MAINSTAY_SDS_ERR_REFUSED);
    CHECK(strstr(mainstay_sds_error(), "there is a channel \"room\" already") != NULL);

    /* There and back. */
    CHECK(mainstay_sds_send(alice, now, "room", "m1", 2, "hello", 5) == 0);
    drain(alice, bob, &a, 0);
    drain(bob, alice, &b, 0);
    CHECK(b.delivered == 1 && strcmp(b.last, "hello") == 0 && b.number == 1);
    CHECK(a.persist > 0 && shelf.count > 0);
    CHECK(mainstay_sds_confirm(bob, now, "room", 1) == 0);
    CHECK(mainstay_sds_send(bob, now, "room", "m1b", 3, "hello to you", 12) == 0);
    drain(bob, alice, &b, 0);
    drain(alice, bob, &a, 0);
    CHECK(a.delivered == 1 && a.acknowledged == 1);

    /* The log, and how much there is. */
    char text[256] = "";
    CHECK(mainstay_sds_log(alice, now, "room", give, text) == 0);
    CHECK(strcmp(text, "m1 by alice: hello\nm1b by bob: hello to you\n") == 0);
    CHECK(mainstay_sds_log(alice, now, "room", NULL, text) == MAINSTAY_SDS_ERR_ARGUMENT);
    mainstay_sds_counts counts;
    CHECK(mainstay_sds_get_counts(alice, now, "room", &counts) == 0);
    CHECK(counts.logged == 2 && counts.outgoing == 0 && counts.lamport > 0);
    CHECK(mainstay_sds_get_counts(alice, now, "room", NULL) == MAINSTAY_SDS_ERR_ARGUMENT);

    /* A late message says what it stands before. */
    mainstay_sds *carol, *dan;
    struct seen c = {0}, d = {0};
    CHECK(mainstay_sds_open("carol", 5, NULL, &carol) == 0);
    CHECK(mainstay_sds_open("dan", 3, NULL, &dan) == 0);
    mainstay_sds_config plain = config;
    plain.keep = MAINSTAY_SDS_KEEP_NOTHING, plain.confirm = 0;
    CHECK(mainstay_sds_join(carol, now, "room", &plain) == 0);
    CHECK(mainstay_sds_join(dan, now, "room", &plain) == 0);
    CHECK(mainstay_sds_send(carol, now, "room", "a", 1, "early", 5) == 0);
    CHECK(mainstay_sds_send(dan, now, "room", "b", 1, "late", 4) == 0);
    drain(dan, carol, &d, 0);
    drain(carol, dan, &c, 0);
    drain(dan, NULL, &d, 0);
    CHECK(d.delivered == 1 && strcmp(d.before, "b") == 0);
    CHECK(mainstay_sds_announce_now(dan, now, "room") == 0);
    drain(dan, carol, &d, 0);
    drain(carol, NULL, &c, 0);
    CHECK(c.acknowledged == 1);
    CHECK(mainstay_sds_close(carol) == 0 && mainstay_sds_close(dan) == 0);

    /* A lost message is missed, with its hint, and comes by repair when its time has come. */
    now.mono_ms += 10, now.wall_ms += 10;
    CHECK(mainstay_sds_send(alice, now, "room", "m2", 2, "lost", 4) == 0);
    drain(alice, NULL, &a, 1);
    CHECK(mainstay_sds_set_hint(alice, now, "room", "m2", 2, "here", 4) == 1);
    CHECK(mainstay_sds_send(alice, now, "room", "m3", 2, "depends on it", 13) == 0);
    drain(alice, bob, &a, 0);
    drain(bob, alice, &b, 0);
    CHECK(b.missing == 1 && b.delivered == 1);
    for (int step = 0; step < 400 && b.delivered < 3; step++) {
        uint64_t at = 0;
        if (mainstay_sds_next_timeout(bob, &at) == 1)
            CHECK(at > 0);
        now.mono_ms += 1000, now.wall_ms += 1000;
        CHECK(mainstay_sds_handle_timeout(alice, now) == 0);
        CHECK(mainstay_sds_handle_timeout(bob, now) == 0);
        drain(alice, bob, &a, 0);
        drain(bob, alice, &b, 0);
    }
    CHECK(b.delivered == 3 && strcmp(b.last, "depends on it") == 0);

    /* A backend that fails holds deliveries back, and is tried again. */
    shelf.fails = 1;
    CHECK(mainstay_sds_send(alice, now, "room", "m4", 2, "later", 5) == 0);
    drain(alice, bob, &a, 0);
    drain(bob, alice, &b, 0);
    CHECK(b.not_kept > 0 && b.delivered == 3);
    shelf.fails = 0;
    for (int step = 0; step < 100 && b.delivered < 4; step++) {
        now.mono_ms += 1000, now.wall_ms += 1000;
        CHECK(mainstay_sds_handle_timeout(bob, now) == 0);
        drain(bob, alice, &b, 0);
    }
    CHECK(b.delivered == 4);

    /* Bob ends and comes back: what he did not confirm comes again. */
    shelf.node = NULL;
    CHECK(mainstay_sds_confirm(bob, now, "room", 3) == 0);
    drain(bob, alice, &b, 0);
    CHECK(mainstay_sds_close(bob) == 0);
    CHECK(mainstay_sds_close(bob) == MAINSTAY_SDS_ERR_CLOSED);
    CHECK(mainstay_sds_open("bob", 3, &backend, &bob) == 0);
    CHECK(mainstay_sds_join(bob, now, "room", &config) == 0);
    memset(&b, 0, sizeof b);
    drain(bob, NULL, &b, 0);
    CHECK(b.delivered == 1 && strcmp(b.last, "later") == 0 && b.number == 4);
    CHECK(mainstay_sds_forget(bob, "room") == 0 && shelf.count == 0);
    CHECK(mainstay_sds_leave(bob, "room") == MAINSTAY_SDS_ERR_REFUSED);

    /* Mainstay's own backend. */
    CHECK(mainstay_sds_close(bob) == 0);
    for (int round = 0; round < 4; round++) {
        if (round < 2)
            CHECK(mainstay_sds_open_pool("bob", 3, ".", "shelf", &bob) == 0);
        else
            CHECK(mainstay_sds_open_store("bob", 3, "store", &bob) == 0);
        CHECK(mainstay_sds_join(bob, now, "room", &config) == 0);
        char id[4];
        snprintf(id, sizeof id, "p%d", round % 2);
        CHECK(mainstay_sds_send(bob, now, "room", id, 2, "kept", 4) == 0);
        if (round % 2 == 1)
            CHECK(mainstay_sds_send(bob, now, "room", "p0", 2, "again", 5) ==
                  MAINSTAY_SDS_ERR_REFUSED);
        drain(bob, NULL, &b, 0);
        CHECK(mainstay_sds_close(bob) == 0);
    }

    /* What nim-sds kept is taken over, kept from then on, and not taken over twice. */
    static const unsigned char snapshot[] = {0x0a, 0x04, 0x08, 0x01, 0x10, 0x2a};
    mainstay_sds_config nim;
    CHECK(mainstay_sds_config_default(MAINSTAY_SDS_NIM, &nim) == 0);
    nim.keep = MAINSTAY_SDS_KEEP_DURABLE;
    for (int round = 0; round < 2; round++) {
        CHECK(mainstay_sds_open_pool("bob", 3, ".", "imported", &bob) == 0);
        int status = mainstay_sds_import_nim(bob, now, "old", &nim, snapshot, sizeof snapshot);
        CHECK(status == (round == 0 ? 0 : MAINSTAY_SDS_ERR_REFUSED));
        if (round == 0)
            CHECK(mainstay_sds_import_nim(bob, now, "odd", &nim, snapshot, 3) ==
                  MAINSTAY_SDS_ERR_REFUSED);
        drain(bob, NULL, &b, 0);
        CHECK(mainstay_sds_close(bob) == 0);
    }

    /* Nonsense. */
    mainstay_sds_output out;
    CHECK(mainstay_sds_poll(NULL, now, &out) == MAINSTAY_SDS_ERR_CLOSED);
    CHECK(mainstay_sds_poll(alice, now, NULL) == MAINSTAY_SDS_ERR_ARGUMENT);
    CHECK(mainstay_sds_send(alice, now, NULL, "m", 1, "x", 1) == MAINSTAY_SDS_ERR_ARGUMENT);
    CHECK(mainstay_sds_send(alice, now, "room", NULL, 1, "x", 1) == MAINSTAY_SDS_ERR_ARGUMENT);
    CHECK(mainstay_sds_send(alice, now, "room", "m9", 2, "x", (size_t)-1) ==
          MAINSTAY_SDS_ERR_ARGUMENT);
    CHECK(mainstay_sds_receive(alice, now, "noise", 5) == MAINSTAY_SDS_ERR_REFUSED);
    CHECK(mainstay_sds_open(NULL, 3, NULL, &bob) == MAINSTAY_SDS_ERR_ARGUMENT && bob == NULL);
    CHECK(mainstay_sds_open("bob", 3, NULL, NULL) == MAINSTAY_SDS_ERR_ARGUMENT);
    mainstay_sds_backend half = {&shelf, save, NULL, forget};
    CHECK(mainstay_sds_open("bob", 3, &half, &bob) == MAINSTAY_SDS_ERR_ARGUMENT);
    config.size = 104;
    CHECK(mainstay_sds_join(alice, now, "other", &config) == MAINSTAY_SDS_ERR_ARGUMENT);
    CHECK(mainstay_sds_join(alice, now, "other", NULL) == MAINSTAY_SDS_ERR_ARGUMENT);
    CHECK(mainstay_sds_now().wall_ms > 1700000000000);
    CHECK(mainstay_sds_close(alice) == 0);
    for (int at = 0; at < shelf.count; at++)
        free(shelf.changes[at]);
    return 0;
}
