/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A value is 1 | kind | generation | index, from the top: never a user-space address, never small.
 * Entries come in blocks that are allocated when first needed and then stay. `value` is the one
 * word that decides: a reader passes the gate, then looks at it; a destroyer clears it, then drains
 * the gate. `obj` is written before `value` is published and stays until the gate was drained.
 *
 * In a forked child every entry is freed: the gates are made anew, because whoever was inside is
 * not of this process, and the generations go on. It does not matter what the lock's holder was
 * about: the list of free entries is rebuilt, and `used` grows after the entry is there.
 */
#include "api/handle.h"

#include <pthread.h>
#include <stdlib.h>

#include "util/cleanup.h"
#include "util/err.h"
#include "util/fork.h"

#define BLOCK	  64u
#define BLOCKS	  1024u
#define INDEX_MAX (BLOCK * BLOCKS) /* 16 bits of a value */
#define GEN_BITS  36
#define NO_INDEX  UINT32_MAX

struct entry {
	struct gate data;
	struct gate wait;
	_Atomic uint64_t value; /* 0: unknown */
	_Atomic(void *) obj;
	uint64_t generation; /* under lock, as what follows */
	uint32_t next_free;
	bool retired; /* atomic by builtin: read without the lock */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static _Atomic(struct entry *) blocks[BLOCKS];
static uint32_t used; /* entries that have ever been handed out */
static uint32_t free_list = NO_INDEX;

static uint32_t value_index(uint64_t value)
{
	return (uint32_t)(value & (INDEX_MAX - 1));
}

static struct entry *block_of(uint32_t index)
{
	return atomic_load_explicit(&blocks[index / BLOCK], memory_order_acquire);
}

/* NULL: nothing has ever had that index. */
static struct entry *entry_at(uint32_t index)
{
	struct entry *block = block_of(index);

	return block ? &block[index % BLOCK] : NULL;
}

/* For an index that has been handed out. */
static struct entry *entry_known(uint32_t index)
{
	return &block_of(index)[index % BLOCK];
}

/* Of a handle that exists. */
static struct entry *entry_of(void *handle)
{
	return entry_known(value_index((uint64_t)(uintptr_t)handle));
}

static uint64_t make_value(enum handle_kind kind, const struct entry *e, uint32_t index)
{
	uint64_t generation = e->generation & ((1ull << GEN_BITS) - 1);

	return 1ull << 63 | (uint64_t)kind << 56 | generation << 16 | index;
}

static enum handle_kind value_kind(uint64_t value)
{
	return (enum handle_kind)(value >> 56 & 0x7f);
}

/* The index of a free entry; NO_INDEX when there is none. Under lock. */
static uint32_t entry_take(void)
{
	uint32_t index = free_list;

	if (index != NO_INDEX) {
		free_list = entry_known(index)->next_free;
		return index;
	}
	if (used == INDEX_MAX)
		return NO_INDEX;
	if (used % BLOCK == 0) {
		void *block = aligned_alloc(64, BLOCK * sizeof(struct entry));
		if (!block)
			return NO_INDEX;
		struct entry *e = block;
		for (uint32_t i = 0; i < BLOCK; i++) {
			e[i] = (struct entry){.next_free = NO_INDEX};
			gate_init(&e[i].data);
			gate_init(&e[i].wait);
		}
		atomic_store_explicit(&blocks[used / BLOCK], e, memory_order_release);
	}
	return used++;
}

int32_t handle_new(enum handle_kind kind, void *obj, void **ret)
{
	LOCKED(&lock);
	uint32_t index = entry_take();
	if (index == NO_INDEX)
		return smem_err(SMEM_NEW_OBJECT_FAILED, "no handle left: %u objects are alive",
				used);
	struct entry *e = entry_known(index);
	e->generation++;
	__atomic_store_n(&e->retired, false, __ATOMIC_RELAXED);
	atomic_store(&e->obj, obj);
	uint64_t value = make_value(kind, e, index);
	atomic_store(&e->value, obj ? value : 0);
	*ret = (void *)(uintptr_t)value; // NOLINT(performance-no-int-to-ptr)
	return SMEM_OK;
}

void handle_publish(void *handle, void *obj)
{
	struct entry *e = entry_of(handle);

	atomic_store(&e->obj, obj);
	atomic_store(&e->value, (uint64_t)(uintptr_t)handle);
}

struct gate *handle_gate(void *handle)
{
	return &entry_of(handle)->data;
}

static void *pass(enum handle_kind kind, void *handle, struct handle_ref *ref, bool waiting)
{
	uint64_t value = (uint64_t)(uintptr_t)handle;
	struct entry *e = entry_at(value_index(value));

	if (!e || value == 0 || value_kind(value) != kind)
		return NULL;
	ref->gate = waiting ? &e->wait : &e->data;
	ref->ticket = gate_enter(ref->gate);
	if (atomic_load(&e->value) == value)
		return atomic_load_explicit(&e->obj, memory_order_relaxed);
	gate_exit(ref->gate, ref->ticket);
	return NULL;
}

void *handle_enter(enum handle_kind kind, void *handle, struct handle_ref *ref)
{
	return pass(kind, handle, ref, false);
}

void *handle_hold(enum handle_kind kind, void *handle, struct handle_ref *ref)
{
	return pass(kind, handle, ref, true);
}

void handle_exit(struct handle_ref *ref)
{
	gate_exit(ref->gate, ref->ticket);
}

bool handle_retired(void *handle)
{
	return __atomic_load_n(&entry_of(handle)->retired, __ATOMIC_ACQUIRE);
}

void *handle_retire(enum handle_kind kind, void *handle)
{
	uint64_t value = (uint64_t)(uintptr_t)handle;
	struct entry *e = entry_at(value_index(value));

	if (!e || value == 0 || value_kind(value) != kind)
		return NULL;
	LOCKED(&lock);
	if (atomic_load(&e->value) != value)
		return NULL;
	__atomic_store_n(&e->retired, true, __ATOMIC_RELEASE);
	atomic_store(&e->value, 0);
	return atomic_load(&e->obj);
}

static void drain(struct gate *g)
{
	while (!gate_drain(g, deadline_in_s(3600)))
		;
}

void handle_drain(void *handle)
{
	struct entry *e = entry_of(handle);

	drain(&e->wait);
	drain(&e->data);
}

void handle_free(void *handle)
{
	uint32_t index = value_index((uint64_t)(uintptr_t)handle);
	struct entry *e = entry_known(index);

	LOCKED(&lock);
	atomic_store(&e->value, 0);
	atomic_store(&e->obj, NULL);
	e->next_free = free_list;
	free_list = index;
}

void handle_each(enum handle_kind kind, void (*fn)(void *handle, void *arg), void *arg)
{
	pthread_mutex_lock(&lock);
	uint32_t n = used;
	pthread_mutex_unlock(&lock);
	for (uint32_t i = 0; i < n; i++) {
		uint64_t value = atomic_load(&entry_known(i)->value);
		if (value != 0 && value_kind(value) == kind)
			fn((void *)(uintptr_t)value, arg); // NOLINT(performance-no-int-to-ptr)
	}
}

static void fork_child(void)
{
	pthread_mutex_init(&lock, NULL);
	free_list = NO_INDEX;
	for (uint32_t i = used; i-- > 0;) {
		struct entry *e = entry_known(i);
		gate_init(&e->data);
		gate_init(&e->wait);
		atomic_store(&e->value, 0);
		atomic_store(&e->obj, NULL);
		e->next_free = free_list;
		free_list = i;
	}
}

static const struct fork_hooks hooks = {.order = FORK_ORDER_API, .child = fork_child};
FORK_HOOKS(hooks)
