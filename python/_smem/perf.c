/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The C side of python -m mf_smem.perf: the same calls in a loop without Python, in nanoseconds a
 * call. Private.
 */
#include "smem_py.h"

#include <time.h>

PARAMS(copy_params, "_time_copy", 6, "pool", "src", "dst", "size", "type", "rounds");
PARAMS(ptr_params, "_time_ptr", 3, "pool", "rank", "rounds");
PARAMS(write_params, "_time_write", 6, "engine", "session", "buffer", "peer", "length", "rounds");
PARAMS(batch_params, "_time_batch", 6, "engine", "session", "buffers", "peers", "lengths",
       "rounds");

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
}

static PyObject *per_call(uint64_t start, uint64_t rounds, int32_t r)
{
	double ns = (double)(now() - start) / (double)(rounds ? rounds : 1);

	if (r == 0)
		return PyFloat_FromDouble(ns);
	PyErr_Format(PyExc_RuntimeError, "%s", smem_get_last_err_msg());
	return NULL;
}

static PyObject *time_copy(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
			   PyObject *kwnames)
{
	struct state *state = PyModule_GetState(module);
	uint64_t src = 0, dest = 0, size = 0, rounds = 0, start = now();
	int32_t type = 0, r = 0;
	PyObject *a[6];

	if (!args_bind(&copy_params, args, nargs, kwnames, a) ||
	    !arg_instance(a[0], "pool", state->big_memory) || !arg_u64(a[1], "src", &src) ||
	    !arg_u64(a[2], "dst", &dest) || !arg_u64(a[3], "size", &size) ||
	    !arg_i32(a[4], "type", &type) || !arg_u64(a[5], "rounds", &rounds))
		return NULL;
	void *handle = ((struct object *)a[0])->handle;
	smem_copy_params params = {
	    .src = (void *)(uintptr_t)src, .dest = (void *)(uintptr_t)dest, .count = size};
	Py_BEGIN_ALLOW_THREADS
	start = now();
	for (uint64_t i = 0; i < rounds && r == 0; i++)
		r = smem_bm_copy(handle, &params, (smem_bm_copy_type)type, 0);
	Py_END_ALLOW_THREADS
	return per_call(start, rounds, r);
}

static PyObject *time_ptr(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
			  PyObject *kwnames)
{
	struct state *state = PyModule_GetState(module);
	uint64_t rounds = 0, start;
	uint16_t rank = 0;
	bool ok = true;
	PyObject *a[3];

	if (!args_bind(&ptr_params, args, nargs, kwnames, a) ||
	    !arg_instance(a[0], "pool", state->big_memory) || !arg_u16(a[1], "rank", &rank) ||
	    !arg_u64(a[2], "rounds", &rounds))
		return NULL;
	void *handle = ((struct object *)a[0])->handle;
	Py_BEGIN_ALLOW_THREADS
	start = now();
	for (uint64_t i = 0; i < rounds && ok; i++)
		ok = smem_bm_ptr(handle, rank) != NULL;
	Py_END_ALLOW_THREADS
	return per_call(start, rounds, ok ? 0 : smem_get_last_err_code());
}

static PyObject *time_write(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
			    PyObject *kwnames)
{
	struct state *state = PyModule_GetState(module);
	uint64_t buffer = 0, peer = 0, length = 0, rounds = 0, start;
	struct text session = {0};
	int32_t r = 0;
	PyObject *a[6];

	if (!args_bind(&write_params, args, nargs, kwnames, a) ||
	    !arg_instance(a[0], "engine", state->engine) || !arg_u64(a[2], "buffer", &buffer) ||
	    !arg_u64(a[3], "peer", &peer) || !arg_u64(a[4], "length", &length) ||
	    !arg_u64(a[5], "rounds", &rounds) || !arg_text(a[1], "session", &session))
		return NULL;
	void *handle = engine_handle(a[0]);
	Py_BEGIN_ALLOW_THREADS
	start = now();
	for (uint64_t i = 0; i < rounds && r == 0; i++)
		r = smem_trans_write(handle, (void *)(uintptr_t)buffer, session.s,
				     (void *)(uintptr_t)peer, length);
	Py_END_ALLOW_THREADS
	text_free(&session);
	return per_call(start, rounds, r);
}

static PyObject *time_batch(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
			    PyObject *kwnames)
{
	struct state *state = PyModule_GetState(module);
	struct vector buffers = {0}, peers = {0}, lengths = {0};
	uint64_t rounds = 0, start = 0;
	struct text session = {0};
	int32_t r = 0;
	PyObject *a[6], *result = NULL;

	if (args_bind(&batch_params, args, nargs, kwnames, a) &&
	    arg_instance(a[0], "engine", state->engine) && arg_vector(a[2], "buffers", &buffers) &&
	    arg_vector(a[3], "peers", &peers) && arg_vector(a[4], "lengths", &lengths) &&
	    arg_u64(a[5], "rounds", &rounds) && arg_text(a[1], "session", &session)) {
		void *handle = engine_handle(a[0]);
		Py_BEGIN_ALLOW_THREADS
		start = now();
		for (uint64_t i = 0; i < rounds && r == 0; i++)
			r = smem_trans_batch_write(handle, (const void **)buffers.items, session.s,
						   (void **)peers.items, (size_t *)lengths.items,
						   (uint32_t)buffers.count);
		Py_END_ALLOW_THREADS
		result = per_call(start, rounds, r);
	}
	vector_free(&buffers);
	vector_free(&peers);
	vector_free(&lengths);
	text_free(&session);
	return result;
}

static PyMethodDef functions[] = {
    {"_time_copy", FAST(time_copy), FASTCALL, "ns of one smem_bm_copy"},
    {"_time_ptr", FAST(time_ptr), FASTCALL, "ns of one smem_bm_ptr"},
    {"_time_write", FAST(time_write), FASTCALL, "ns of one smem_trans_write"},
    {"_time_batch", FAST(time_batch), FASTCALL, "ns of one smem_trans_batch_write"},
};

int perf_functions(PyObject *module)
{
	for (size_t i = 0; i < ARRAY(functions); i++) {
		if (add_function(module, "mf_smem._smem", functions[i].ml_name, &functions[i]) < 0)
			return -1;
	}
	return 0;
}
