/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mf_smem.shm: functions and ShareMemory over smem_shm.h.
 */
#include "smem_py.h"

#include "shm_doc.h"

#define CONTEXT_MAX 65536

PARAMS(initialize_params, "initialize", 5, "store_url", "world_size", "rank_id", "device_id",
       "config");
PARAMS(uninitialize_params, "uninitialize", 0, "flags");
PARAMS(create_params, "ShareMemory", 4, "id", "rank_size", "rank_id", "local_mem_size",
       "data_op_type", "flags");
PARAMS(set_context_params, "set_context", 1, "context");
PARAMS(get_context_params, "get_context", 1, "rank");
PARAMS(all_gather_params, "all_gather", 1, "local_data");
PARAMS(reach_params, "topology_can_reach", 1, "remote_rank", "reach_info");
PARAMS(register_exit_params, "register_exit", 1, "callback");
PARAMS(global_exit_params, "global_exit", 1, "status");
PARAMS(destroy_params, "destroy", 0, "flags");
PARAMS(view_params, "view", 0, "rank");

static PyObject *shm_initialize(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
				PyObject *kwnames)
{
	struct state *state = PyModule_GetState(module);
	PyObject *a[5];
	uint32_t world_size = 0, rank_id = 0;
	uint16_t device_id = 0;
	struct text url = {0};
	int32_t r;

	if (!args_bind(&initialize_params, args, nargs, kwnames, a) ||
	    !arg_u32(a[1], "world_size", &world_size) || !arg_u32(a[2], "rank_id", &rank_id) ||
	    !arg_u16(a[3], "device_id", &device_id) ||
	    !arg_instance(a[4], "config", state->shm_config) || !arg_text(a[0], "store_url", &url))
		return NULL;
	smem_shm_config_t config = ((struct record *)a[4])->shm;
	Py_BEGIN_ALLOW_THREADS
	r = smem_shm_init(url.s, world_size, rank_id, device_id, &config);
	Py_END_ALLOW_THREADS
	text_free(&url);
	return error_code(r);
}

static PyObject *shm_uninitialize(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
				  PyObject *kwnames)
{
	PyObject *a[1];
	uint32_t flags = 0;

	(void)module;
	if (!args_bind(&uninitialize_params, args, nargs, kwnames, a) ||
	    !arg_u32(a[0], "flags", &flags) || !process_no_views("uninitialize", BIT(SERVICE_SHM)))
		return NULL;
	process_next_epoch(BIT(SERVICE_SHM));
	Py_BEGIN_ALLOW_THREADS
	smem_shm_uninit(flags);
	Py_END_ALLOW_THREADS
	Py_RETURN_NONE;
}

static PyObject *shm_query(PyObject *self, PyObject *unused)
{
	uint32_t bits;

	(void)self;
	(void)unused;
	Py_BEGIN_ALLOW_THREADS
	bits = smem_shm_query_support_data_operation();
	Py_END_ALLOW_THREADS
	return PyLong_FromUnsignedLong(bits);
}

struct create_args {
	uint32_t id, rank_size, rank_id, flags;
	int32_t data_op_type;
	uint64_t size;
};

static int shm_create_handle(PyObject *self, PyObject *const *a)
{
	struct object *o = (struct object *)self;
	struct create_args c = {.data_op_type = SMEMS_DATA_OP_MTE};
	void *handle, *gva = NULL;

	if (!arg_u32(a[0], "id", &c.id) || !arg_u32(a[1], "rank_size", &c.rank_size) ||
	    !arg_u32(a[2], "rank_id", &c.rank_id) || !arg_u64(a[3], "local_mem_size", &c.size) ||
	    !arg_i32(a[4], "data_op_type", &c.data_op_type) || !arg_u32(a[5], "flags", &c.flags))
		return -1;
	if (!o->state && !(o->state = object_state(self)))
		return -1;
	o->service = SERVICE_SHM;
	if (o->begun) {
		error_raise_text(o->state, SMEM_REPEAT_CALL, "smem_shm_create",
				 "the object is created already");
		return -1;
	}
	o->begun = true;
	Py_BEGIN_ALLOW_THREADS
	handle = smem_shm_create(c.id, c.rank_size, c.rank_id, c.size,
				 (smem_shm_data_op_type)c.data_op_type, c.flags, &gva);
	Py_END_ALLOW_THREADS
	if (!handle) {
		o->begun = false;
		error_raise_last(o->state, "smem_shm_create");
		return -1;
	}
	o->id = c.id;
	o->rank = c.rank_id;
	o->gva = gva;
	o->slot_size = c.size;
	object_begin(o, handle);
	return 0;
}

static int shm_object_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
	PyObject *a[6];

	return args_bind_dict(&create_params, args, kwargs, a) ? shm_create_handle(self, a) : -1;
}

static PyObject *shm_create(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
			    PyObject *kwnames)
{
	static const struct params params = {"create", 4, 6, create_params_names};
	struct state *state = PyModule_GetState(module);
	PyTypeObject *type = (PyTypeObject *)state->share_memory;
	PyObject *a[6];

	if (!args_bind(&params, args, nargs, kwnames, a))
		return NULL;
	PyObject *self = PyType_GenericAlloc(type, 0);
	if (self && shm_create_handle(self, a) < 0)
		Py_CLEAR(self);
	return self;
}

static int shm_traverse(PyObject *self, visitproc visit, void *arg)
{
	Py_VISIT(Py_TYPE(self));
	Py_VISIT(((struct object *)self)->exit_callback);
	return 0;
}

static int shm_clear(PyObject *self)
{
	callback_forget_object((struct object *)self);
	return 0;
}

static void shm_dealloc(PyObject *self)
{
	struct object *o = (struct object *)self;
	PyObject *type, *value, *trace;

	PyObject_GC_UnTrack(self);
	if (o->weak)
		PyObject_ClearWeakRefs(self);
	PyErr_Fetch(&type, &value, &trace);
	callback_forget_object(o);
	void *handle = object_take(o);
	if (handle) {
		Py_BEGIN_ALLOW_THREADS
		smem_shm_destroy(handle, 0);
		Py_END_ALLOW_THREADS
	}
	PyErr_Restore(type, value, trace);
	object_free(self);
}

static PyObject *shm_local_rank(PyObject *self, void *closure)
{
	struct object *o = (struct object *)self;
	void *handle;
	uint32_t rank;

	(void)closure;
	if (!object_handle(o, "smem_shm_get_global_rank", &handle))
		return NULL;
	Py_BEGIN_ALLOW_THREADS
	rank = smem_shm_get_global_rank(handle);
	Py_END_ALLOW_THREADS
	if (rank == UINT32_MAX)
		return error_raise_last(o->state, "smem_shm_get_global_rank");
	return PyLong_FromUnsignedLong(rank);
}

static bool shm_size(struct object *o, void *handle, uint32_t *ret)
{
	Py_BEGIN_ALLOW_THREADS
	*ret = smem_shm_get_global_rank_size(handle);
	Py_END_ALLOW_THREADS
	if (*ret == UINT32_MAX)
		error_raise_last(o->state, "smem_shm_get_global_rank_size");
	return *ret != UINT32_MAX;
}

static PyObject *shm_rank_size(PyObject *self, void *closure)
{
	struct object *o = (struct object *)self;
	void *handle;
	uint32_t size;

	(void)closure;
	if (!object_handle(o, "smem_shm_get_global_rank_size", &handle) ||
	    !shm_size(o, handle, &size))
		return NULL;
	return PyLong_FromUnsignedLong(size);
}

static PyObject *shm_gva(PyObject *self, void *closure)
{
	struct object *o = (struct object *)self;
	void *handle;
	uint32_t size;

	(void)closure;
	if (!object_handle(o, "smem_shm_get_global_rank_size", &handle) ||
	    !shm_size(o, handle, &size))
		return NULL;
	return PyLong_FromVoidPtr(o->gva);
}

static PyObject *shm_set_context(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
				 PyObject *kwnames)
{
	struct object *o = (struct object *)self;
	PyObject *a[1];
	Py_buffer buffer;
	void *handle;
	int32_t r;

	if (!args_bind(&set_context_params, args, nargs, kwnames, a) ||
	    !object_handle(o, "smem_shm_set_extra_context", &handle) ||
	    !arg_bytes(a[0], "context", &buffer))
		return NULL;
	uint32_t size = buffer.len > UINT32_MAX ? UINT32_MAX : (uint32_t)buffer.len;
	Py_BEGIN_ALLOW_THREADS
	r = smem_shm_set_extra_context(handle, buffer.buf ? buffer.buf : "", size);
	Py_END_ALLOW_THREADS
	PyBuffer_Release(&buffer);
	if (r != 0)
		return error_raise(o->state, r, "smem_shm_set_extra_context");
	Py_RETURN_NONE;
}

static PyObject *shm_get_context(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
				 PyObject *kwnames)
{
	struct object *o = (struct object *)self;
	PyObject *a[1];
	uint32_t rank = 0, size = CONTEXT_MAX;
	void *handle;
	int32_t r;

	if (!args_bind(&get_context_params, args, nargs, kwnames, a) ||
	    !arg_u32(a[0], "rank", &rank) ||
	    !object_handle(o, "smem_shm_get_extra_context", &handle))
		return NULL;
	char *buffer = PyMem_Malloc(CONTEXT_MAX);
	if (!buffer)
		return PyErr_NoMemory();
	Py_BEGIN_ALLOW_THREADS
	r = smem_shm_get_extra_context(handle, rank, buffer, &size);
	Py_END_ALLOW_THREADS
	PyObject *result = r == 0 ? PyBytes_FromStringAndSize(buffer, size)
				  : error_raise(o->state, r, "smem_shm_get_extra_context");
	PyMem_Free(buffer);
	return result;
}

static PyObject *shm_barrier(PyObject *self, PyObject *unused)
{
	struct object *o = (struct object *)self;
	void *handle;
	int32_t r;

	(void)unused;
	if (!object_handle(o, "smem_shm_control_barrier", &handle))
		return NULL;
	Py_BEGIN_ALLOW_THREADS
	r = smem_shm_control_barrier(handle);
	Py_END_ALLOW_THREADS
	if (r != 0)
		return error_raise(o->state, r, "smem_shm_control_barrier");
	Py_RETURN_NONE;
}

/* Too much to gather is C's to refuse, so no more than its limit is ever allocated. */
static PyObject *gather(struct object *o, void *handle, const Py_buffer *mine)
{
	uint32_t ranks, size = mine->len > CONTEXT_MAX ? CONTEXT_MAX + 1 : (uint32_t)mine->len;
	int32_t r;

	if (!shm_size(o, handle, &ranks))
		return NULL;
	PyObject *all = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)ranks * size);
	if (!all)
		return NULL;
	char *bytes = PyBytes_AsString(all);
	Py_BEGIN_ALLOW_THREADS
	r = smem_shm_control_allgather(handle, mine->buf ? mine->buf : "", size, bytes,
				       ranks * size);
	Py_END_ALLOW_THREADS
	if (r == 0)
		return all;
	Py_DECREF(all);
	return error_raise(o->state, r, "smem_shm_control_allgather");
}

static PyObject *shm_all_gather(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
				PyObject *kwnames)
{
	struct object *o = (struct object *)self;
	PyObject *a[1];
	Py_buffer buffer;
	void *handle;

	if (!args_bind(&all_gather_params, args, nargs, kwnames, a) ||
	    !object_handle(o, "smem_shm_control_allgather", &handle) ||
	    !arg_bytes(a[0], "local_data", &buffer))
		return NULL;
	PyObject *all = gather(o, handle, &buffer);
	PyBuffer_Release(&buffer);
	return all;
}

static PyObject *shm_reach(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
			   PyObject *kwnames)
{
	struct object *o = (struct object *)self;
	PyObject *a[2];
	uint32_t rank = 0, bits = 0, ignored = 0;
	void *handle;
	int32_t r;

	if (!args_bind(&reach_params, args, nargs, kwnames, a) ||
	    !arg_u32(a[0], "remote_rank", &rank))
		return NULL;
	bool code_only = a[1] && a[1] != Py_None;
	if ((code_only && !arg_u32(a[1], "reach_info", &ignored)) ||
	    !object_handle(o, "smem_shm_topology_can_reach", &handle))
		return NULL;
	Py_BEGIN_ALLOW_THREADS
	r = smem_shm_topology_can_reach(handle, rank, &bits);
	Py_END_ALLOW_THREADS
	if (code_only)
		return error_code(r);
	return r == 0 ? PyLong_FromUnsignedLong(bits)
		      : error_raise(o->state, r, "smem_shm_topology_can_reach");
}

static PyObject *shm_register_exit(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
				   PyObject *kwnames)
{
	struct object *o = (struct object *)self;
	PyObject *a[1];
	void *handle;

	if (!args_bind(&register_exit_params, args, nargs, kwnames, a) ||
	    !arg_callable(a[0], "callback") || !callback_main_interpreter("register_exit") ||
	    !object_handle(o, "smem_shm_register_exit", &handle))
		return NULL;
	int32_t r = callback_register_exit(o, handle, a[0]);
	if (r != 0)
		return error_raise(o->state, r, "smem_shm_register_exit");
	Py_RETURN_NONE;
}

static PyObject *shm_global_exit(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
				 PyObject *kwnames)
{
	struct object *o = (struct object *)self;
	PyObject *a[1];
	int32_t status = 0, r;
	struct error_probe probe;
	void *handle;

	if (!args_bind(&global_exit_params, args, nargs, kwnames, a) ||
	    !arg_i32(a[0], "status", &status) || !object_handle(o, "smem_shm_global_exit", &handle))
		return NULL;
	Py_BEGIN_ALLOW_THREADS
	error_probe_begin(&probe);
	smem_shm_global_exit(handle, status);
	r = error_probe_end(&probe);
	Py_END_ALLOW_THREADS
	if (r != 0)
		return error_raise(o->state, r, "smem_shm_global_exit");
	Py_RETURN_NONE;
}

static PyObject *destroy(struct object *o, uint32_t flags)
{
	void *handle = object_take(o);

	if (handle) {
		Py_BEGIN_ALLOW_THREADS
		smem_shm_destroy(handle, flags);
		Py_END_ALLOW_THREADS
		callback_forget_object(o);
	}
	if (PyErr_Occurred())
		return NULL;
	Py_RETURN_NONE;
}

static PyObject *shm_destroy(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
			     PyObject *kwnames)
{
	PyObject *a[1];
	uint32_t flags = 0;

	if (!args_bind(&destroy_params, args, nargs, kwnames, a) || !arg_u32(a[0], "flags", &flags))
		return NULL;
	return destroy((struct object *)self, flags);
}

static PyObject *shm_view(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
			  PyObject *kwnames)
{
	struct object *o = (struct object *)self;
	PyObject *a[1];
	uint32_t rank = o->rank, ranks;
	void *handle;

	if (!args_bind(&view_params, args, nargs, kwnames, a) ||
	    !arg_u32(a[0] == Py_None ? NULL : a[0], "rank", &rank) ||
	    !object_handle(o, "smem_shm_get_global_rank_size", &handle) ||
	    !shm_size(o, handle, &ranks))
		return NULL;
	if (!object_live(o)) /* destroyed while the GIL was away */
		return error_raise_text(o->state, SMEM_OBJECT_NOT_EXISTS, "ShareMemory.view",
					"the object was destroyed during the call");
	if (rank >= ranks)
		return error_raise_text(o->state, SMEM_INVALID_PARAM, "ShareMemory.view",
					"rank is not below rank_size");
	struct region_request q = {.owner = o,
				   .address = (uintptr_t)o->gva + rank * o->slot_size,
				   .size = o->slot_size,
				   .peer = rank != o->rank,
				   .rank = rank,
				   .operation = "ShareMemory.view"};
	return region_view(&q, NULL);
}

static PyObject *shm_enter(PyObject *self, PyObject *unused)
{
	(void)unused;
	Py_INCREF(self);
	return self;
}

static PyObject *shm_exit(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
	(void)args;
	(void)nargs;
	return destroy((struct object *)self, 0);
}

static PyMethodDef methods[] = {
    {"set_context", FAST(shm_set_context), FASTCALL, set_context_doc},
    {"get_context", FAST(shm_get_context), FASTCALL, get_context_doc},
    {"query_support_data_operation", shm_query, METH_NOARGS, method_query_doc},
    {"barrier", shm_barrier, METH_NOARGS, barrier_doc},
    {"all_gather", FAST(shm_all_gather), FASTCALL, all_gather_doc},
    {"topology_can_reach", FAST(shm_reach), FASTCALL, reach_doc},
    {"register_exit", FAST(shm_register_exit), FASTCALL, register_exit_doc},
    {"global_exit", FAST(shm_global_exit), FASTCALL, global_exit_doc},
    {"view", FAST(shm_view), FASTCALL, view_doc},
    {"destroy", FAST(shm_destroy), FASTCALL, destroy_doc},
    {"__enter__", shm_enter, METH_NOARGS, "__enter__($self, /)\n--\n\nThe object itself."},
    {"__exit__", FAST(shm_exit), METH_FASTCALL,
     "__exit__($self, exc_type, exc_value, traceback, /)\n--\n\nCalls destroy()."},
    {0},
};

static PyGetSetDef getset[] = {
    {"local_rank", shm_local_rank, NULL, local_rank_doc, NULL},
    {"rank_size", shm_rank_size, NULL, rank_size_doc, NULL},
    {"gva", shm_gva, NULL, gva_doc, NULL},
    {0},
};

static PyMemberDef members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(struct object, weak), READONLY, NULL},
    {0},
};

static PyType_Slot slots[] = {
    {Py_tp_init, shm_object_init},
    {Py_tp_dealloc, shm_dealloc},
    {Py_tp_traverse, shm_traverse},
    {Py_tp_clear, shm_clear},
    {Py_tp_methods, methods},
    {Py_tp_getset, getset},
    {Py_tp_members, members},
    {Py_tp_doc, (void *)share_memory_doc},
    {0},
};

PyType_Spec share_memory_spec = {.name = "mf_smem.shm.ShareMemory",
				 .basicsize = sizeof(struct object),
				 .flags =
				     Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
				 .slots = slots};

static PyMethodDef functions[] = {
    {"initialize", FAST(shm_initialize), FASTCALL, initialize_doc},
    {"uninitialize", FAST(shm_uninitialize), FASTCALL, uninitialize_doc},
    {"query_support_data_operation", shm_query, METH_NOARGS, query_doc},
    {"create", FAST(shm_create), FASTCALL, create_doc},
};

int shm_functions(PyObject *module)
{
	static const char *const names[] = {"shm_initialize", "shm_uninitialize", "shm_query",
					    "shm_create"};

	for (size_t i = 0; i < ARRAY(functions); i++) {
		if (add_function(module, "mf_smem.shm", names[i], &functions[i]) < 0)
			return -1;
	}
	return 0;
}
