/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mf_smem.bm: functions and BigMemory over smem_bm.h.
 */
#include "smem_py.h"

PARAMS(initialize_params, "initialize", 4, "store_url", "world_size", "device_id", "config");
PARAMS(uninitialize_params, "uninitialize", 0, "flags");
PARAMS(create_params, "BigMemory", 3, "id", "local_dram_size", "local_hbm_size", "data_op_type",
       "flags", "member_size");
PARAMS(join_params, "join", 0, "flags");
PARAMS(leave_params, "leave", 0, "flags");
PARAMS(size_params, "local_mem_size", 0, "mem_type");
PARAMS(ptr_params, "peer_rank_ptr", 1, "peer_rank", "mem_type");
PARAMS(copy_params, "copy_data", 4, "src_ptr", "dst_ptr", "size", "type", "flags");
PARAMS(copy_2d_params, "copy_data_2d", 2, "params", "type", "flags");
PARAMS(view_params, "view", 0, "peer_rank", "mem_type");

static PyObject *bm_initialize(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
			       PyObject *kwnames)
{
	struct state *state = PyModule_GetState(module);
	PyObject *a[4];
	uint32_t world_size = 0;
	uint16_t device_id = 0;
	struct text url = {0};
	int32_t r;

	if (!args_bind(&initialize_params, args, nargs, kwnames, a) ||
	    !arg_u32(a[1], "world_size", &world_size) || !arg_u16(a[2], "device_id", &device_id) ||
	    !arg_instance(a[3], "config", state->bm_config) || !arg_text(a[0], "store_url", &url))
		return NULL;
	smem_bm_config_t config = ((struct record *)a[3])->bm;
	Py_BEGIN_ALLOW_THREADS
	r = smem_bm_init(url.s, world_size, device_id, &config);
	Py_END_ALLOW_THREADS
	text_free(&url);
	return error_code(r);
}

static PyObject *bm_uninitialize(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
				 PyObject *kwnames)
{
	PyObject *a[1];
	uint32_t flags = 0;

	(void)module;
	if (!args_bind(&uninitialize_params, args, nargs, kwnames, a) ||
	    !arg_u32(a[0], "flags", &flags) || !process_no_views("uninitialize", BIT(SERVICE_BM)))
		return NULL;
	process_next_epoch(BIT(SERVICE_BM));
	Py_BEGIN_ALLOW_THREADS
	smem_bm_uninit(flags);
	Py_END_ALLOW_THREADS
	Py_RETURN_NONE;
}

static PyObject *bm_rank_id(PyObject *module, PyObject *unused)
{
	uint32_t rank;

	(void)module;
	(void)unused;
	Py_BEGIN_ALLOW_THREADS
	rank = smem_bm_get_rank_id();
	Py_END_ALLOW_THREADS
	if (rank == UINT32_MAX)
		error_seen_c();
	return PyLong_FromUnsignedLong(rank);
}

struct create_args {
	uint32_t id, flags, member_size;
	int32_t data_op_type;
	uint64_t dram, hbm;
};

static int bm_create_handle(PyObject *self, PyObject *const *a)
{
	struct object *o = (struct object *)self;
	struct create_args c = {.data_op_type = SMEMB_DATA_OP_SDMA};
	void *handle;
	uint32_t rank = 0;

	if (!arg_u32(a[0], "id", &c.id) || !arg_u64(a[1], "local_dram_size", &c.dram) ||
	    !arg_u64(a[2], "local_hbm_size", &c.hbm) ||
	    !arg_i32(a[3], "data_op_type", &c.data_op_type) || !arg_u32(a[4], "flags", &c.flags) ||
	    !arg_u32(a[5], "member_size", &c.member_size))
		return -1;
	if (!o->state && !(o->state = object_state(self)))
		return -1;
	o->service = SERVICE_BM;
	if (o->begun) {
		error_raise_text(o->state, SMEM_REPEAT_CALL, "smem_bm_create",
				 "the object is created already");
		return -1;
	}
	o->begun = true;
	Py_BEGIN_ALLOW_THREADS
	handle = smem_bm_create(c.id, c.member_size, (smem_bm_data_op_type)c.data_op_type, c.dram,
				c.hbm, c.flags);
	if (handle)
		rank = smem_bm_get_rank_id();
	Py_END_ALLOW_THREADS
	if (!handle) {
		o->begun = false;
		error_raise_last(o->state, "smem_bm_create");
		return -1;
	}
	o->id = c.id;
	o->rank = rank;
	object_begin(o, handle);
	return 0;
}

static int bm_object_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
	PyObject *a[6];

	return args_bind_dict(&create_params, args, kwargs, a) ? bm_create_handle(self, a) : -1;
}

static PyObject *bm_create(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
			   PyObject *kwnames)
{
	static const struct params params = {"create", 3, 6, create_params_names};
	struct state *state = PyModule_GetState(module);
	PyTypeObject *type = (PyTypeObject *)state->big_memory;
	PyObject *a[6];

	if (!args_bind(&params, args, nargs, kwnames, a))
		return NULL;
	PyObject *self = PyType_GenericAlloc(type, 0);
	if (self && bm_create_handle(self, a) < 0)
		Py_CLEAR(self);
	return self;
}

static void bm_dealloc(PyObject *self)
{
	struct object *o = (struct object *)self;
	PyObject *type, *value, *trace;

	if (o->weak)
		PyObject_ClearWeakRefs(self);
	PyErr_Fetch(&type, &value, &trace);
	void *handle = object_take(o);
	if (handle) {
		Py_BEGIN_ALLOW_THREADS
		smem_bm_destroy(handle);
		Py_END_ALLOW_THREADS
	}
	PyErr_Restore(type, value, trace);
	object_free(self);
}

static PyObject *bm_join(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
	struct object *o = (struct object *)self;
	PyObject *a[1];
	uint32_t flags = 0;
	void *handle, *address = NULL;
	int32_t r;

	if (!args_bind(&join_params, args, nargs, kwnames, a) || !arg_u32(a[0], "flags", &flags) ||
	    !object_handle(o, "smem_bm_join", &handle))
		return NULL;
	Py_BEGIN_ALLOW_THREADS
	r = smem_bm_join(handle, flags, &address);
	Py_END_ALLOW_THREADS
	return r == 0 ? PyLong_FromVoidPtr(address) : error_raise(o->state, r, "smem_bm_join");
}

static PyObject *bm_leave(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
			  PyObject *kwnames)
{
	struct object *o = (struct object *)self;
	PyObject *a[1];
	uint32_t flags = 0;
	void *handle;
	int32_t r;

	if (!args_bind(&leave_params, args, nargs, kwnames, a) || !arg_u32(a[0], "flags", &flags) ||
	    !object_handle(o, "smem_bm_leave", &handle))
		return NULL;
	if (o->peer_views) {
		PyErr_Format(
		    PyExc_BufferError,
		    "leave: views of other ranks' slots are alive (%u); release them first",
		    o->peer_views);
		return NULL;
	}
	Py_BEGIN_ALLOW_THREADS
	r = smem_bm_leave(handle, flags);
	Py_END_ALLOW_THREADS
	if (r != 0)
		return error_raise(o->state, r, "smem_bm_leave");
	Py_RETURN_NONE;
}

/* None and absence are the same: no particular window. */
static bool arg_mem_type(PyObject *o, int32_t *ret)
{
	*ret = -1;
	if (!o || o == Py_None)
		return true;
	if (!arg_i32(o, "mem_type", ret))
		return false;
	if (*ret < 0)
		*ret = SMEM_MEM_TYPE_BUTT;
	return true;
}

/* 0 is a failure, or the honest size of a window that the object lacks. */
static bool bm_size(struct object *o, void *handle, int32_t type, uint64_t *ret)
{
	uint64_t all = 1;

	Py_BEGIN_ALLOW_THREADS
	*ret = type < 0 ? smem_bm_get_local_mem_size(handle)
			: smem_bm_get_local_mem_size_by_mem_type(handle, (smem_bm_mem_type)type);
	if (*ret == 0 && (type == SMEM_MEM_TYPE_DEVICE || type == SMEM_MEM_TYPE_HOST))
		all = smem_bm_get_local_mem_size(handle);
	else if (*ret == 0)
		all = 0;
	Py_END_ALLOW_THREADS
	if (all == 0)
		error_raise_last(o->state, type < 0 ? "smem_bm_get_local_mem_size"
						    : "smem_bm_get_local_mem_size_by_mem_type");
	return all != 0;
}

static PyObject *bm_local_mem_size(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
				   PyObject *kwnames)
{
	struct object *o = (struct object *)self;
	PyObject *a[1];
	int32_t type;
	void *handle;
	uint64_t size;

	if (!args_bind(&size_params, args, nargs, kwnames, a) || !arg_mem_type(a[0], &type) ||
	    !object_handle(o, "smem_bm_get_local_mem_size", &handle) ||
	    !bm_size(o, handle, type, &size))
		return NULL;
	return PyLong_FromUnsignedLongLong(size);
}

static bool bm_ptr(struct object *o, void *handle, int32_t type, uint16_t rank, void **ret)
{
	Py_BEGIN_ALLOW_THREADS
	*ret = type < 0 ? smem_bm_ptr(handle, rank)
			: smem_bm_ptr_by_mem_type(handle, (smem_bm_mem_type)type, rank);
	Py_END_ALLOW_THREADS
	if (!*ret)
		error_raise_last(o->state, type < 0 ? "smem_bm_ptr" : "smem_bm_ptr_by_mem_type");
	return *ret != NULL;
}

static PyObject *bm_peer_rank_ptr(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
				  PyObject *kwnames)
{
	struct object *o = (struct object *)self;
	PyObject *a[2];
	uint16_t rank = 0;
	int32_t type;
	void *handle, *address;

	if (!args_bind(&ptr_params, args, nargs, kwnames, a) ||
	    !arg_u16(a[0], "peer_rank", &rank) || !arg_mem_type(a[1], &type) ||
	    !object_handle(o, "smem_bm_ptr", &handle) || !bm_ptr(o, handle, type, rank, &address))
		return NULL;
	return PyLong_FromVoidPtr(address);
}

static PyObject *bm_copy_data(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
			      PyObject *kwnames)
{
	struct object *o = (struct object *)self;
	PyObject *a[5];
	uint64_t src = 0, dest = 0, size = 0;
	int32_t type = 0, r;
	uint32_t flags = 0;
	void *handle;

	if (!args_bind(&copy_params, args, nargs, kwnames, a) || !arg_u64(a[0], "src_ptr", &src) ||
	    !arg_u64(a[1], "dst_ptr", &dest) || !arg_u64(a[2], "size", &size) ||
	    !arg_i32(a[3], "type", &type) || !arg_u32(a[4], "flags", &flags) ||
	    !object_handle(o, "smem_bm_copy", &handle))
		return NULL;
	smem_copy_params params = {
	    .src = (void *)(uintptr_t)src, .dest = (void *)(uintptr_t)dest, .count = size};
	Py_BEGIN_ALLOW_THREADS
	r = smem_bm_copy(handle, &params, (smem_bm_copy_type)type, flags);
	Py_END_ALLOW_THREADS
	if (r != 0)
		return error_raise(o->state, r, "smem_bm_copy");
	Py_RETURN_NONE;
}

static PyObject *bm_copy_data_2d(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
				 PyObject *kwnames)
{
	struct object *o = (struct object *)self;
	PyObject *a[3];
	int32_t type = 0, r;
	uint32_t flags = 0;
	void *handle;

	if (!args_bind(&copy_2d_params, args, nargs, kwnames, a) ||
	    !object_handle(o, "smem_bm_copy_2d", &handle) ||
	    !arg_instance(a[0], "params", o->state->copy_2d) || !arg_i32(a[1], "type", &type) ||
	    !arg_u32(a[2], "flags", &flags))
		return NULL;
	smem_copy_2d_params params = ((struct record *)a[0])->copy_2d;
	Py_BEGIN_ALLOW_THREADS
	r = smem_bm_copy_2d(handle, &params, (smem_bm_copy_type)type, flags);
	Py_END_ALLOW_THREADS
	if (r != 0)
		return error_raise(o->state, r, "smem_bm_copy_2d");
	Py_RETURN_NONE;
}

static PyObject *bm_destroy(PyObject *self, PyObject *unused)
{
	void *handle = object_take((struct object *)self);

	(void)unused;
	if (handle) {
		Py_BEGIN_ALLOW_THREADS
		smem_bm_destroy(handle);
		Py_END_ALLOW_THREADS
	}
	if (PyErr_Occurred())
		return NULL;
	Py_RETURN_NONE;
}

/* One byte copied out of the slot tells whether both ranks are members, with the proper code. */
static int32_t view_check(void *handle, const struct region_request *q)
{
	char byte;
	smem_copy_params params = {.src = (void *)(uintptr_t)q->address, .dest = &byte, .count = 1};

	return smem_bm_copy(handle, &params, SMEMB_COPY_G2H, 0);
}

static PyObject *bm_view(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
	struct object *o = (struct object *)self;
	PyObject *a[2];
	uint16_t rank = (uint16_t)o->rank;
	int32_t type;
	uint64_t size;
	void *handle, *address;

	if (!args_bind(&view_params, args, nargs, kwnames, a) ||
	    !arg_u16(a[0] == Py_None ? NULL : a[0], "peer_rank", &rank) ||
	    !arg_mem_type(a[1], &type) || !object_handle(o, "smem_bm_ptr", &handle) ||
	    !bm_ptr(o, handle, type, rank, &address) || !bm_size(o, handle, type, &size))
		return NULL;
	if (!object_live(o)) /* destroyed while the GIL was away */
		return error_raise_text(o->state, SMEM_OBJECT_NOT_EXISTS, "smem_bm_ptr",
					"the object was destroyed during the call");
	struct region_request q = {.owner = o,
				   .address = (uintptr_t)address,
				   .size = size,
				   .peer = rank != o->rank,
				   .rank = rank,
				   .operation = "smem_bm_copy"};
	return region_view(&q, view_check);
}

static PyObject *bm_enter(PyObject *self, PyObject *unused)
{
	(void)unused;
	Py_INCREF(self);
	return self;
}

static PyObject *bm_exit(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
	(void)args;
	(void)nargs;
	return bm_destroy(self, NULL);
}

#include "bm_doc.h"

static PyMethodDef methods[] = {
    {"join", FAST(bm_join), FASTCALL, join_doc},
    {"leave", FAST(bm_leave), FASTCALL, leave_doc},
    {"local_mem_size", FAST(bm_local_mem_size), FASTCALL, local_mem_size_doc},
    {"peer_rank_ptr", FAST(bm_peer_rank_ptr), FASTCALL, peer_rank_ptr_doc},
    {"copy_data", FAST(bm_copy_data), FASTCALL, copy_data_doc},
    {"copy_data_2d", FAST(bm_copy_data_2d), FASTCALL, copy_data_2d_doc},
    {"view", FAST(bm_view), FASTCALL, view_doc},
    {"destroy", bm_destroy, METH_NOARGS, destroy_doc},
    {"__enter__", bm_enter, METH_NOARGS, "__enter__($self, /)\n--\n\nThe object itself."},
    {"__exit__", FAST(bm_exit), METH_FASTCALL,
     "__exit__($self, exc_type, exc_value, traceback, /)\n--\n\nCalls destroy()."},
    {0},
};

static PyMemberDef members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(struct object, weak), READONLY, NULL},
    {0},
};

static PyType_Slot slots[] = {
    {Py_tp_init, bm_object_init}, {Py_tp_dealloc, bm_dealloc},	       {Py_tp_methods, methods},
    {Py_tp_members, members},	  {Py_tp_doc, (void *)big_memory_doc}, {0},
};

PyType_Spec big_memory_spec = {.name = "mf_smem.bm.BigMemory",
			       .basicsize = sizeof(struct object),
			       .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
			       .slots = slots};

static PyMethodDef functions[] = {
    {"initialize", FAST(bm_initialize), FASTCALL, initialize_doc},
    {"uninitialize", FAST(bm_uninitialize), FASTCALL, uninitialize_doc},
    {"bm_rank_id", bm_rank_id, METH_NOARGS, bm_rank_id_doc},
    {"create", FAST(bm_create), FASTCALL, create_doc},
};

int bm_functions(PyObject *module)
{
	static const char *const names[] = {"bm_initialize", "bm_uninitialize", "bm_rank_id",
					    "bm_create"};

	for (size_t i = 0; i < ARRAY(functions); i++) {
		if (add_function(module, "mf_smem.bm", names[i], &functions[i]) < 0)
			return -1;
	}
	return 0;
}
