/* SPDX-License-Identifier: Apache-2.0 */
/*
 * _smem: the C library for Python, within the limited API of 3.11 (the first whose limited API has
 * buffers), so that one binary serves every later CPython.
 *
 * The law of every file here: a C call that can wait, log or move data runs without the GIL, and no
 * Python object is touched then; whatever the call needs is copied or pinned first. A mistake of
 * the caller is a Python exception that names the argument, raised before any C call.
 */
#ifndef SMEM_PY_H
#define SMEM_PY_H

#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x030B0000
#endif
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "smem.h"
#include "smem_bm.h"
#include "smem_shm.h"
#include "smem_trans.h"

enum service { SERVICE_BM, SERVICE_SHM, SERVICE_TRANS, SERVICE_COUNT };

/* What the module knows, one per interpreter. */
struct state {
	PyObject *smem_error; /* class mf_smem.SmemError */
	PyObject *bm_config;
	PyObject *shm_config;
	PyObject *copy_2d;
	PyObject *region;
	PyObject *big_memory;
	PyObject *share_memory;
	PyObject *engine;
};

/*
 * What the process knows; changed with the GIL held only. An object is live while its generation
 * and epoch are the present ones: a fork starts a new generation, an uninit of its service from
 * Python a new epoch.
 */
struct process {
	uint32_t generation;
	uint32_t views[SERVICE_COUNT]; /* regions alive */
	uint64_t epoch[SERVICE_COUNT];
};

extern struct process process;

/* The beginning of BigMemory and ShareMemory. */
struct object {
	PyObject_HEAD
	PyObject *weak;
	struct state *state;
	void *handle; /* NULL: not created, or destroyed */
	uint64_t epoch;
	uint32_t generation;
	uint32_t views;	     /* regions of this object alive */
	uint32_t peer_views; /* those on slots of other ranks */
	uint32_t rank;	     /* own number in the object */
	enum service service;
	bool begun; /* __init__ ran */
	/* ShareMemory only */
	uint32_t id;
	void *gva;
	uint64_t slot_size;
	PyObject *exit_callback;
	bool exit_registering;
};

/* A handle value that no object ever has: the library answers what it answers for destroyed ones */
#define BAD_HANDLE ((void *)1)

/* ---- args.c: arguments ---- */

/* The parameters of a function: names in order, the first `required` of them without default. */
struct params {
	const char *func;
	int required, total;
	const char *const *names;
};

#define PARAMS(var, fn, req, ...)                                                                  \
	static const char *const var##_names[] = {__VA_ARGS__};                                    \
	static const struct params var = {.func = (fn),                                            \
					  .required = (req),                                       \
					  .total = sizeof(var##_names) / sizeof(var##_names[0]),   \
					  .names = var##_names}

/* Borrowed references into out[0..total-1], NULL where not given. TypeError otherwise. */
bool args_bind(const struct params *p, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
	       PyObject **out);
bool args_bind_dict(const struct params *p, PyObject *args, PyObject *kwargs, PyObject **out);

/* Each leaves *ret alone when o is NULL (the default). TypeError, OverflowError name the argument.
 */
bool arg_unsigned(PyObject *o, const char *name, uint64_t max, uint64_t *ret);
bool arg_signed(PyObject *o, const char *name, int64_t min, int64_t max, int64_t *ret);
bool arg_u16(PyObject *o, const char *name, uint16_t *ret);
bool arg_u32(PyObject *o, const char *name, uint32_t *ret);
bool arg_u64(PyObject *o, const char *name, uint64_t *ret);
bool arg_i32(PyObject *o, const char *name, int32_t *ret);
bool arg_bool(PyObject *o, const char *name, bool *ret);
bool arg_instance(PyObject *o, const char *name, PyObject *type);
bool arg_callable(PyObject *o, const char *name);

/* A string for C. Text that cannot be a C string arrives as one that no grammar accepts. */
struct text {
	const char *s;
	PyObject *owner; /* new reference; text_free() drops it */
};
bool arg_text(PyObject *o, const char *name, struct text *ret);
void text_free(struct text *t);

/* Bytes to read, any contiguous buffer; PyBuffer_Release() when done. */
bool arg_bytes(PyObject *o, const char *name, Py_buffer *ret);

/* ---- vector.c: sequences of integers for batch calls ---- */

struct vector {
	uint64_t *items;
	size_t count;
	uint64_t *copy;	  /* PyMem, when the items had to be converted */
	Py_buffer buffer; /* buffer.obj NULL when there is none */
};
bool arg_vector(PyObject *o, const char *name, struct vector *ret);
void vector_free(struct vector *v);

/* ---- error.c ---- */

/* Raise SmemError for the code that `operation` returned; the text is the thread's last error. */
PyObject *error_raise(struct state *state, int32_t code, const char *operation);
/* The same for functions that returned NULL, 0 or UINT32_MAX. */
PyObject *error_raise_last(struct state *state, const char *operation);
/* The same with a text of ours: "<operation>: <NAME> (<code>): <detail>". */
PyObject *error_raise_text(struct state *state, int32_t code, const char *operation,
			   const char *detail);
/* A failure found here and not in C becomes the thread's last error; returns code. */
int32_t error_record(int32_t code, const char *operation, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* The last error, wherever it was found. error_seen_c: C has just set its own. */
void error_seen_c(void);
const char *error_last(void);
const char *error_last_clear(void);
/* For void C functions: did the call between the two fail? `save` returns false without memory. */
struct error_probe {
	char text[1024];
};
void error_probe_begin(struct error_probe *p);
int32_t error_probe_end(struct error_probe *p);
/* int for the user; remembers who has the last word about the last error. */
PyObject *error_code(int32_t code);

/* ---- object.c: what BigMemory and ShareMemory share, and process-wide state ---- */

int process_setup(void);
struct state *object_state(PyObject *self);
bool object_live(const struct object *o);
/* The handle for C, BAD_HANDLE when destroyed. An object inherited by fork: SmemError, false. */
bool object_handle(struct object *o, const char *operation, void **ret);
void object_begin(struct object *o, void *handle);
/* Takes the handle for destruction; NULL when there is nothing to do, or with BufferError set when
 * views are alive. */
void *object_take(struct object *o);
/* BufferError when views of the services' memory are alive. */
bool process_no_views(const char *func, unsigned services);
void process_next_epoch(unsigned services);
/* visit/dealloc helpers */
void object_free(PyObject *self);

/* ---- region.c: slots as memory ---- */

extern PyType_Spec region_spec;
/* A writable memoryview of [address, address + size) that keeps o from being destroyed. `check` is
 * called without the GIL once destruction is barred; its failure is raised as SmemError. */
struct region_request {
	struct object *owner;
	uint64_t address;
	uint64_t size;
	bool peer; /* a slot of another rank */
	uint32_t rank;
	const char *operation;
};
PyObject *region_view(const struct region_request *request,
		      int32_t (*check)(void *handle, const struct region_request *request));

/* ---- callback.c ---- */

int callback_setup(PyObject *module);
bool callback_main_interpreter(const char *func);
void callback_reset_after_fork(void);
int32_t callback_set_logger(PyObject *callable); /* NULL or None: back to the default sink */
int32_t callback_set_decrypt(PyObject *callable);
int32_t callback_register_exit(struct object *o, void *handle, PyObject *callable);
void callback_forget_object(struct object *o);

/* ---- record.c: configuration and parameter structs ---- */

extern PyType_Spec bm_config_spec, shm_config_spec, copy_2d_spec;
struct record {
	PyObject_HEAD
	union {
		smem_bm_config_t bm;
		smem_shm_config_t shm;
		smem_copy_2d_params copy_2d;
	};
};

/* ---- the services ---- */

extern PyType_Spec big_memory_spec, share_memory_spec, engine_spec;
int bm_functions(PyObject *module);
int shm_functions(PyObject *module);
int common_functions(PyObject *module);

int perf_functions(PyObject *module);
/* Adds `def` to _smem as `attribute`, as a function of the public module `home`. */
int add_function(PyObject *module, const char *home, const char *attribute, PyMethodDef *def);

/* ports held by engines are closed in a forked child */
void engine_after_fork(void);
void *engine_handle(PyObject *self);

#define FAST(f)	     ((PyCFunction)(void (*)(void))(f))
#define FASTCALL     (METH_FASTCALL | METH_KEYWORDS)
#define ARRAY(a)     (sizeof(a) / sizeof((a)[0]))
#define BIT(s)	     (1U << (s))
#define ALL_SERVICES (BIT(SERVICE_COUNT) - 1)

#endif
