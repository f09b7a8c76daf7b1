/* SDS for C programs: the interface that programs written for nim-sds know.
 *
 * A program that includes this header and links with -lsds is built as before. Function names,
 * types, results and events are those of the field; what was unspecified there is said here.
 *
 *  - Every function copies what it is given before it returns.
 *  - Results come through the callback, from a thread of the manager's own, once for each call
 *    that returned RET_OK. A call that returned RET_ERR has called it before, with the reason,
 *    from the caller's thread.
 *  - The text given to a callback is not terminated, and valid during the call only.
 *  - A callback may call every function of this header.
 *  - A manager that does not exist (any more) is an error, never a crash.
 *  - There is no limit on the number of managers; each has one thread, which sleeps when there is
 *    nothing to do.
 *
 * New programs are better served by mainstay_sds.h beside this file.
 */
#ifndef MAINSTAY_LIBSDS_H
#define MAINSTAY_LIBSDS_H

#include <stddef.h>
#include <stdint.h>

/* What the functions that return int return. */
#define RET_OK 0
#define RET_ERR 1
#define RET_MISSING_CALLBACK 2

#ifdef __cplusplus
extern "C" {
#endif

/* A result or an event: RET_OK or RET_ERR, and a text of len bytes. */
typedef void (*SdsCallBack)(int callerRet, const char *msg, size_t len, void *userData);

/* Says how the message can be found by those who miss it. *hint is to be made with malloc, and is
 * freed by the library; a NULL means that there is no hint. */
typedef void (*SdsRetrievalHintProvider)(const char *messageId, char **hint, size_t *hintLen,
                                         void *userData);

/* A new manager; NULL without a callback, or if a thread cannot be had. The callback is told. */
void *SdsNewReliabilityManager(SdsCallBack callback, void *userData);

/* The same with an identity of one's own, which turns repair (SDS-R) on, and with a configuration:
 * a JSON object with any of bloomFilterCapacity, bloomFilterErrorRate, maxMessageHistory,
 * maxCausalHistory, resendIntervalMs, maxResendAttempts, syncMessageIntervalMs, repairTMinMs,
 * repairTMaxMs, numResponseGroups, maxRepairRequests; bufferSweepIntervalMs and
 * repairSweepIntervalMs are accepted and have no effect, because nothing is swept here: everything
 * happens when it is due. Both may be NULL or empty. */
void *SdsNewReliabilityManagerWithConfig(const char *participantId, const char *configJson,
                                         SdsCallBack callback, void *userData);

/* Events, from the manager's thread, each a JSON object:
 *   {"eventType":"message_ready","messageId":...,"channelId":...}
 *   {"eventType":"message_sent","messageId":...,"channelId":...}          it was acknowledged
 *   {"eventType":"message_evicted","messageId":...,"channelId":...}       it waited, and is dropped
 *   {"eventType":"missing_dependencies","messageId":...,"channelId":...,
 *    "missingDeps":[{"messageId":...,"retrievalHint":base64},...]}
 *   {"eventType":"periodic_sync"}
 *   {"eventType":"repair_ready","channelId":...,"message":base64}         send this to everybody
 * message_evicted is not of the field: of messages that wait for others, the oldest is dropped when
 * more than 1024 of one sender, or 4096 in all, do (or 4 MiB, and 16 MiB). It is asked for again when
 * others depend on it. periodic_sync and repair_ready come after SdsStartPeriodicTasks only. repair_ready is used for what others asked
 * for, and for own messages that nobody acknowledged in time; each is offered again maxResendAttempts
 * times at most, and none before the tasks are started. message_sent comes whenever somebody
 * acknowledges a message, also after that; it never comes for one that nobody acknowledged.
 * message_ready waits for as long as something is missing that SdsMarkDependenciesMet does not
 * name. */
void SdsSetEventCallback(void *ctx, SdsCallBack callback, void *userData);

void SdsSetRetrievalHintProvider(void *ctx, SdsRetrievalHintProvider callback, void *userData);

/* Ends a manager. When this returns, its thread has ended and no callback will come (unless it is
 * called from a callback: then after that one). */
int SdsCleanupReliabilityManager(void *ctx, SdsCallBack callback, void *userData);

/* Forgets all channels. */
int SdsResetReliabilityManager(void *ctx, SdsCallBack callback, void *userData);

/* The result is the message to send to everybody, as decimal numbers with commas between them.
 * The same id again gives the same message again, if the content is the same. */
int SdsWrapOutgoingMessage(void *ctx, void *message, size_t messageLen, const char *messageId,
                           const char *channelId, SdsCallBack callback, void *userData);

/* The result is {"message":[numbers],"channelId":...,"missingDeps":[...]}: the content, also if it
 * waits for others, or was received before. A channel is made when a message of it is wrapped, or
 * received: but at most 1024 of them by messages received. */
int SdsUnwrapReceivedMessage(void *ctx, void *message, size_t messageLen, SdsCallBack callback,
                             void *userData);

/* What depends on these messages need not wait for them. */
int SdsMarkDependenciesMet(void *ctx, char **messageIDs, size_t count, const char *channelId,
                           SdsCallBack callback, void *userData);

int SdsStartPeriodicTasks(void *ctx, SdsCallBack callback, void *userData);

/* Forgets a channel; no error if there is none. */
int SdsRemoveChannel(void *ctx, const char *channelId, SdsCallBack callback, void *userData);

#ifdef __cplusplus
}
#endif

#endif /* MAINSTAY_LIBSDS_H */
