/* SDS for C programs: binary, without threads, callbacks or clocks of its own.
 *
 * A node is one participant in any number of channels. Give it one input (send, receive,
 * handle_timeout, ...), take its outputs with mainstay_sds_poll until there are none, then wait for
 * the next input or until mainstay_sds_next_timeout. Time is an argument; mainstay_sds_now says what
 * the system's clocks say.
 *
 *     mainstay_sds *node;
 *     mainstay_sds_config config;
 *     mainstay_sds_output out;
 *     mainstay_sds_open("alice", 5, NULL, &node);
 *     mainstay_sds_config_default(MAINSTAY_SDS_LIP, &config);
 *     mainstay_sds_join(node, mainstay_sds_now(), "room", &config);
 *     mainstay_sds_send(node, mainstay_sds_now(), "room", "m1", 2, "hello", 5);
 *     while (mainstay_sds_poll(node, mainstay_sds_now(), &out) > 0)
 *         if (out.kind == MAINSTAY_SDS_BROADCAST)
 *             send_to_everybody(out.bytes, out.bytes_len);
 *
 * Functions return 0 or more if all is well, a negative number otherwise; then
 * mainstay_sds_error says what was wrong and what to do. Whatever is refused changes nothing. No
 * input ends the program, whatever its bytes. Everything given is copied before a function returns.
 * A node may be used by several threads, one at a time.
 */
#ifndef MAINSTAY_SDS_H
#define MAINSTAY_SDS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Why a call was refused. */
#define MAINSTAY_SDS_ERR_ARGUMENT (-1)    /* a null pointer, an absurd length, an unknown number */
#define MAINSTAY_SDS_ERR_CLOSED (-2)      /* there is no such node (any more) */
#define MAINSTAY_SDS_ERR_BUSY (-3)        /* called from a function of the node's own backend */
#define MAINSTAY_SDS_ERR_REFUSED (-4)     /* the message or the request is not acceptable */
#define MAINSTAY_SDS_ERR_PERSISTENCE (-5) /* the backend failed */
#define MAINSTAY_SDS_ERR_INTERNAL (-6)    /* a fault in the library: please report it */

/* The two dialects; their peers do not understand each other. */
#define MAINSTAY_SDS_LIP 0 /* the specification's, and that of @waku/sds */
#define MAINSTAY_SDS_NIM 1 /* that of nim-sds and what is built on it */

/* Kinds of output. */
#define MAINSTAY_SDS_BROADCAST 1             /* send bytes to everybody; reason says why */
#define MAINSTAY_SDS_DELIVER 2               /* bytes is content for the application */
#define MAINSTAY_SDS_ACKNOWLEDGED 3          /* somebody has the message id */
#define MAINSTAY_SDS_POSSIBLY_ACKNOWLEDGED 4 /* probably somebody has it */
#define MAINSTAY_SDS_FAILED 5                /* nobody acknowledged it, and it is not sent again */
#define MAINSTAY_SDS_MISSING 6               /* id is missing; bytes is its hint */
#define MAINSTAY_SDS_FETCH 7                 /* fetch it elsewhere and give it to receive */
#define MAINSTAY_SDS_LOST 8                  /* id was given up */
#define MAINSTAY_SDS_EVICTED 9               /* id waited for others and was dropped */
#define MAINSTAY_SDS_PERSIST 10              /* keep bytes, then call mainstay_sds_persisted */
#define MAINSTAY_SDS_NOT_KEPT 11             /* the backend failed; it is tried again by itself */

/* Why something is sent. */
#define MAINSTAY_SDS_CONTENT 1
#define MAINSTAY_SDS_EPHEMERAL 2
#define MAINSTAY_SDS_RESEND 3
#define MAINSTAY_SDS_SYNC 4
#define MAINSTAY_SDS_REPAIR 5

/* What became of a message received. */
#define MAINSTAY_SDS_RECEIVED_DELIVERED 1
#define MAINSTAY_SDS_RECEIVED_BUFFERED 2
#define MAINSTAY_SDS_RECEIVED_DUPLICATE 3
#define MAINSTAY_SDS_RECEIVED_OWN 4
#define MAINSTAY_SDS_RECEIVED_SYNC 5
#define MAINSTAY_SDS_RECEIVED_EPHEMERAL 6
#define MAINSTAY_SDS_RECEIVED_TOO_OLD 7

/* Whether changes are to be kept. */
#define MAINSTAY_SDS_KEEP_NOTHING 0
#define MAINSTAY_SDS_KEEP_RELAXED 1 /* messages do not wait for it */
#define MAINSTAY_SDS_KEEP_DURABLE 2 /* nothing is sent or delivered before its change is kept */

typedef struct mainstay_sds mainstay_sds;

/* What the clocks say: one that never goes back, and milliseconds since 1970. */
typedef struct mainstay_sds_time {
    uint64_t mono_ms;
    uint64_t wall_ms;
} mainstay_sds_time;

/* How a channel behaves. Fill it with mainstay_sds_config_default, then change what you need. */
typedef struct mainstay_sds_config {
    uint64_t size; /* of this structure; tells versions apart; leave it */
    uint32_t profile;
    uint32_t only_own_peers;  /* 1: no peers of other makers, so that any filter size will do */
    uint32_t participants;    /* about how many */
    uint32_t joining;         /* 1: what was said before this participant came is not wanted */
    uint64_t seed;            /* secret; 0: a random one */
    uint32_t filter_capacity; /* ids the filter is made for */
    uint32_t history;         /* messages in the log */
    uint32_t causal;          /* messages cited by each message */
    uint32_t resend_attempts;
    uint64_t resend_ms;
    uint64_t sync_interval_ms; /* 0: no sync messages */
    uint64_t t_min_ms;         /* repair; common to all members of a group; 0: no repair */
    uint64_t t_max_ms;
    uint64_t lost_after_ms; /* 0: nothing is given up */
    uint32_t fetch;         /* 1: tell what to fetch from elsewhere */
    uint32_t confirm;       /* 1: deliveries come again after a restart until confirmed */
    uint32_t keep;
    uint32_t response_groups;  /* of repair; common to all members; 0: by the participants */
    double filter_error_rate;  /* when the filter holds filter_capacity ids */
    uint32_t filter_sparse;    /* 1: most messages of content go without the filter */
    uint32_t sync_causal;      /* messages cited by each sync message */
    uint32_t requests;         /* in a message of content */
    uint32_t sync_requests;    /* in a sync message */
    uint64_t resend_possibly_ms; /* of what is possibly acknowledged; 0: four times resend_ms */
    uint64_t fetch_interval_ms;
    uint64_t lamport_ahead_ms; /* how far past the clock a message's time may be */
    uint64_t lamport_gap;      /* or past the channel's own time, in units of the profile */
    uint64_t lamport_join_ahead_ms; /* the same of the first message, for one who joins */
    uint32_t message_len_max;  /* what the transport carries at once */
    uint32_t outgoing_max;     /* own messages that wait for an acknowledgement */
    uint32_t incoming_max;     /* messages that wait for others, their bytes, and each sender's */
    uint32_t incoming_bytes_max;
    uint32_t incoming_per_sender_max;
    uint32_t incoming_per_sender_bytes_max;
} mainstay_sds_config;

/* How much there is of everything that has a limit. */
typedef struct mainstay_sds_counts {
    uint64_t logged;
    uint64_t outgoing;    /* own messages that nobody has acknowledged */
    uint64_t buffered;    /* messages that wait for others */
    uint64_t buffered_bytes;
    uint64_t missing;
    uint64_t wanted;      /* of the missing ones those that are asked for */
    uint64_t answers;     /* messages that are about to be sent again for others */
    uint64_t remembered;  /* ids that left the log and still count as known */
    uint64_t known;       /* all ids */
    uint64_t unconfirmed;
    uint64_t needed;      /* how often others have shown that they wait for something */
    uint64_t lamport;
    uint64_t memory_bytes;
} mainstay_sds_counts;

/* What a node has to say. What it points to is valid until the next call with the node. */
typedef struct mainstay_sds_output {
    uint32_t kind;
    uint32_t reason;        /* of a broadcast */
    const char *channel;    /* terminated */
    const uint8_t *id;
    size_t id_len;
    const uint8_t *sender;
    size_t sender_len;
    const uint8_t *bytes;
    size_t bytes_len;
    uint64_t lamport; /* of a delivery; 0 of an ephemeral one */
    uint64_t number;  /* of a delivery, or of a change */
    uint64_t later;   /* of a delivery: how many messages of the log come after it */
    uint32_t again;   /* of a delivery: it was delivered before the restart */
    uint32_t base;    /* of a change: it replaces all before it */
    const uint8_t *before; /* of a delivery: the message of the log that comes right after it */
    size_t before_len;     /* 0: it is the last one */
} mainstay_sds_output;

/* A place that keeps changes. Its functions return 0, or anything else if they failed; they are
 * called during the calls with the node, and must not call it. */
typedef struct mainstay_sds_backend {
    void *data; /* given back to each function */
    /* Keep bytes, whole or not at all, behind those kept of the channel; a base replaces them. */
    int (*save)(void *data, const char *channel, uint64_t number, int base, const uint8_t *bytes,
                size_t len);
    /* Call give for everything kept of the channel, in order. */
    int (*load)(void *data, const char *channel,
                void (*give)(void *to, const uint8_t *bytes, size_t len), void *to);
    /* Drop all of a channel. */
    int (*forget)(void *data, const char *channel);
} mainstay_sds_backend;

/* What was wrong with the last call of this thread that was refused; never NULL. Valid until the
 * next call of this thread. */
const char *mainstay_sds_error(void);

mainstay_sds_time mainstay_sds_now(void);

int32_t mainstay_sds_config_default(uint32_t profile, mainstay_sds_config *config);

/* A node of the participant. Without a backend, changes are outputs (if keep says so). */
int32_t mainstay_sds_open(const void *participant, size_t participant_len,
                          const mainstay_sds_backend *backend, mainstay_sds **node);

/* The same with Mainstay's own backend: pools NAME.SIZE.pool in a folder, which outlive the
 * process. */
int32_t mainstay_sds_open_pool(const void *participant, size_t participant_len, const char *folder,
                               const char *name, mainstay_sds **node);

/* The same with a store in a folder, which outlives a loss of power as well: each change waits for
 * the disk. */
int32_t mainstay_sds_open_store(const void *participant, size_t participant_len,
                                const char *folder, mainstay_sds **node);

int32_t mainstay_sds_close(mainstay_sds *node);

/* Takes part in a channel; if the backend has some of it, it goes on where it was. */
int32_t mainstay_sds_join(mainstay_sds *node, mainstay_sds_time now, const char *channel,
                          const mainstay_sds_config *config);
/* The same with a channel that nim-sds kept, as its ChannelData in bytes. Refused if the node, or
 * its backend, has such a channel already. */
int32_t mainstay_sds_import_nim(mainstay_sds *node, mainstay_sds_time now, const char *channel,
                                const mainstay_sds_config *config, const void *snapshot,
                                size_t len);
int32_t mainstay_sds_leave(mainstay_sds *node, const char *channel);
/* Leaves it, if it was joined, and drops what the backend has of it. */
int32_t mainstay_sds_forget(mainstay_sds *node, const char *channel);

/* An id is used once in a channel, by anybody. */
int32_t mainstay_sds_send(mainstay_sds *node, mainstay_sds_time now, const char *channel,
                          const void *id, size_t id_len, const void *content, size_t content_len);
int32_t mainstay_sds_send_ephemeral(mainstay_sds *node, mainstay_sds_time now, const char *channel,
                                    const void *id, size_t id_len, const void *content,
                                    size_t content_len);

/* Any bytes, from anybody. Returns one of MAINSTAY_SDS_RECEIVED_*. */
int32_t mainstay_sds_receive(mainstay_sds *node, mainstay_sds_time now, const void *bytes,
                             size_t len);

int32_t mainstay_sds_handle_timeout(mainstay_sds *node, mainstay_sds_time now);
/* When handle_timeout is to be called. Returns 1, or 0 if nothing is planned. */
int32_t mainstay_sds_next_timeout(mainstay_sds *node, uint64_t *mono_ms);

/* The next output. Returns 1, or 0 if there is none. */
int32_t mainstay_sds_poll(mainstay_sds *node, mainstay_sds_time now, mainstay_sds_output *output);

/* Without a backend: the change of that number was kept (ok is not 0), or not. */
int32_t mainstay_sds_persisted(mainstay_sds *node, mainstay_sds_time now, const char *channel,
                               uint64_t number, int ok);

/* All deliveries up to that number are done with. */
int32_t mainstay_sds_confirm(mainstay_sds *node, mainstay_sds_time now, const char *channel,
                             uint64_t number);

/* How the message can be found. Returns 1, or 0 if the message is not known. */
int32_t mainstay_sds_set_hint(mainstay_sds *node, mainstay_sds_time now, const char *channel,
                              const void *id, size_t id_len, const void *hint, size_t hint_len);

/* What depends on the message need not wait for it. */
int32_t mainstay_sds_mark_known(mainstay_sds *node, mainstay_sds_time now, const char *channel,
                                const void *id, size_t id_len);

int32_t mainstay_sds_get_counts(mainstay_sds *node, mainstay_sds_time now, const char *channel,
                                mainstay_sds_counts *counts);

/* Calls give for each message of the log, in the order that all participants share. What it is given
 * is valid during the call; it must not call the node. Returns 0. */
int32_t mainstay_sds_log(mainstay_sds *node, mainstay_sds_time now, const char *channel,
                         void (*give)(void *to, const uint8_t *id, size_t id_len,
                                      const uint8_t *sender, size_t sender_len, uint64_t lamport,
                                      const uint8_t *content, size_t content_len),
                         void *to);

/* Tell the others soon what this participant has: after coming, or coming back. */
int32_t mainstay_sds_announce(mainstay_sds *node, mainstay_sds_time now, const char *channel);
/* The same now: before leaving. */
int32_t mainstay_sds_announce_now(mainstay_sds *node, mainstay_sds_time now, const char *channel);

#ifdef __cplusplus
}
#endif

#endif /* MAINSTAY_SDS_H */
