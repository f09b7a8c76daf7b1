/* What the test programs share. */
#ifndef CHECK_H
#define CHECK_H

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CHECK(condition)                                                                 \
    do {                                                                                 \
        if (!(condition)) {                                                              \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);      \
            exit(1);                                                                     \
        }                                                                                \
    } while (0)

/* The result of one call, and the events so far. */
struct told {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    int calls;
    int status;
    char text[1 << 17];
    int events;
    char all[1 << 17];
};

#define TOLD_INITIALIZER {.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER}

static inline void on_result(int status, const char *text, size_t len, void *data) {
    struct told *told = data;
    pthread_mutex_lock(&told->mutex);
    CHECK(len < sizeof told->text);
    memcpy(told->text, text, len);
    told->text[len] = 0;
    told->status = status;
    told->calls++;
    pthread_cond_broadcast(&told->changed);
    pthread_mutex_unlock(&told->mutex);
}

static inline void on_event(int status, const char *text, size_t len, void *data) {
    struct told *told = data;
    pthread_mutex_lock(&told->mutex);
    CHECK(status == 0);
    size_t used = strlen(told->all);
    CHECK(used + len + 2 < sizeof told->all);
    memcpy(told->all + used, text, len);
    told->all[used + len] = '\n';
    told->all[used + len + 1] = 0;
    told->events++;
    pthread_cond_broadcast(&told->changed);
    pthread_mutex_unlock(&told->mutex);
}

/* Waits for the next result; its status. */
static inline int result(struct told *told, int calls_before) {
    struct timespec limit;
    clock_gettime(CLOCK_REALTIME, &limit);
    limit.tv_sec += 20;
    pthread_mutex_lock(&told->mutex);
    while (told->calls == calls_before)
        CHECK(pthread_cond_timedwait(&told->changed, &told->mutex, &limit) == 0);
    int status = told->status;
    pthread_mutex_unlock(&told->mutex);
    return status;
}

/* Waits until an event with this text was told. */
static inline void event(struct told *told, const char *text) {
    struct timespec limit;
    clock_gettime(CLOCK_REALTIME, &limit);
    limit.tv_sec += 20;
    pthread_mutex_lock(&told->mutex);
    while (strstr(told->all, text) == NULL) {
        if (pthread_cond_timedwait(&told->changed, &told->mutex, &limit) != 0) {
            fprintf(stderr, "never told: %s\ntold was: %s\n", text, told->all);
            exit(1);
        }
    }
    pthread_mutex_unlock(&told->mutex);
}

#endif
