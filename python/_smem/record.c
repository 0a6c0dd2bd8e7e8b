/* SPDX-License-Identifier: Apache-2.0 */
/*
 * BmConfig, ShmConfig and CopyData2DParams: C structs as Python objects with attributes, by one
 * table of fields each. Defaults come from the C library; equality, repr and pickling go by value.
 */
#include "smem_py.h"

#include <string.h>

enum kind { KIND_BOOL, KIND_U16, KIND_U32, KIND_U64 };

struct field {
	const char *name;
	enum kind kind;
	size_t offset;
};

struct schema {
	const char *type;
	size_t count;
	const struct field *fields;
	void (*defaults)(struct record *r);
};

#define FIELDS_MAX 10

#define BM(f)	offsetof(struct record, bm.f)
#define SHM(f)	offsetof(struct record, shm.f)
#define COPY(f) offsetof(struct record, copy_2d.f)

static const struct field bm_fields[] = {
    {"init_timeout", KIND_U32, BM(initTimeout)},
    {"create_timeout", KIND_U32, BM(createTimeout)},
    {"operation_timeout", KIND_U32, BM(controlOperationTimeout)},
    {"start_store", KIND_BOOL, BM(startConfigStore)},
    {"start_store_only", KIND_BOOL, BM(startConfigStoreOnly)},
    {"dynamic_world_size", KIND_BOOL, BM(dynamicWorldSize)},
    {"unified_address_space", KIND_BOOL, BM(unifiedAddressSpace)},
    {"auto_ranking", KIND_BOOL, BM(autoRanking)},
    {"rank_id", KIND_U16, BM(rankId)},
    {"flags", KIND_U32, BM(flags)},
};

static const struct field shm_fields[] = {
    {"init_timeout", KIND_U32, SHM(shmInitTimeout)},
    {"create_timeout", KIND_U32, SHM(shmCreateTimeout)},
    {"operation_timeout", KIND_U32, SHM(controlOperationTimeout)},
    {"start_store", KIND_BOOL, SHM(startConfigStore)},
    {"flags", KIND_U32, SHM(flags)},
};

static const struct field copy_fields[] = {
    {"src", KIND_U64, COPY(src)},     {"spitch", KIND_U64, COPY(spitch)},
    {"dest", KIND_U64, COPY(dest)},   {"dpitch", KIND_U64, COPY(dpitch)},
    {"width", KIND_U64, COPY(width)}, {"height", KIND_U64, COPY(height)},
};

static void bm_defaults(struct record *r)
{
	smem_bm_config_init(&r->bm);
}

static void shm_defaults(struct record *r)
{
	smem_shm_config_init(&r->shm);
}

static void copy_defaults(struct record *r)
{
	r->copy_2d = (smem_copy_2d_params){0};
}

static const struct schema bm_schema = {"BmConfig", ARRAY(bm_fields), bm_fields, bm_defaults};
static const struct schema shm_schema = {"ShmConfig", ARRAY(shm_fields), shm_fields, shm_defaults};
static const struct schema copy_schema = {"CopyData2DParams", ARRAY(copy_fields), copy_fields,
					  copy_defaults};

static void *field_at(PyObject *self, const struct field *f)
{
	return (char *)self + f->offset;
}

static PyObject *field_get(PyObject *self, void *closure)
{
	const struct field *f = closure;
	uint64_t n = 0;

	switch (f->kind) {
	case KIND_BOOL:
		return PyBool_FromLong(*(bool *)field_at(self, f));
	case KIND_U16:
		n = *(uint16_t *)field_at(self, f);
		break;
	case KIND_U32:
		n = *(uint32_t *)field_at(self, f);
		break;
	case KIND_U64:
		n = *(uint64_t *)field_at(self, f);
		break;
	}
	return PyLong_FromUnsignedLongLong(n);
}

static int field_set(PyObject *self, PyObject *value, void *closure)
{
	const struct field *f = closure;
	bool ok = false;

	if (!value) {
		PyErr_Format(PyExc_AttributeError, "'%s' cannot be deleted", f->name);
		return -1;
	}
	switch (f->kind) {
	case KIND_BOOL:
		ok = arg_bool(value, f->name, field_at(self, f));
		break;
	case KIND_U16:
		ok = arg_u16(value, f->name, field_at(self, f));
		break;
	case KIND_U32:
		ok = arg_u32(value, f->name, field_at(self, f));
		break;
	case KIND_U64:
		ok = arg_u64(value, f->name, field_at(self, f));
		break;
	}
	return ok ? 0 : -1;
}

/* All or nothing, so that a failing __init__ changes no attribute. */
static int record_assign(PyObject *self, const struct schema *s, PyObject *args, PyObject *kwargs)
{
	const char *names[FIELDS_MAX];
	PyObject *values[FIELDS_MAX];
	struct record *r = (struct record *)self, before = *r;

	for (size_t i = 0; i < s->count; i++)
		names[i] = s->fields[i].name;
	struct params p = {.func = s->type, .total = (int)s->count, .names = names};
	if (!args_bind_dict(&p, args, kwargs, values))
		return -1;
	s->defaults(r);
	for (size_t i = 0; i < s->count; i++) {
		if (values[i] && field_set(self, values[i], (void *)&s->fields[i]) < 0) {
			memcpy(&r->bm, &before.bm, sizeof(*r) - offsetof(struct record, bm));
			return -1;
		}
	}
	return 0;
}

static PyObject *record_new(PyTypeObject *type, const struct schema *s)
{
	allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
	PyObject *self = alloc(type, 0);

	if (self)
		s->defaults((struct record *)self);
	return self;
}

static void record_dealloc(PyObject *self)
{
	PyTypeObject *type = Py_TYPE(self);
	freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);

	release(self);
	Py_DECREF(type);
}

static PyObject *record_values(PyObject *self, const struct schema *s)
{
	PyObject *values = PyTuple_New((Py_ssize_t)s->count);

	for (size_t i = 0; values && i < s->count; i++) {
		PyObject *value = field_get(self, (void *)&s->fields[i]);
		if (!value) {
			Py_CLEAR(values);
			break;
		}
		PyTuple_SetItem(values, (Py_ssize_t)i, value);
	}
	return values;
}

static PyObject *record_repr(PyObject *self, const struct schema *s)
{
	PyObject *parts = PyList_New(0);

	for (size_t i = 0; parts && i < s->count; i++) {
		PyObject *value = field_get(self, (void *)&s->fields[i]);
		PyObject *part =
		    value ? PyUnicode_FromFormat("%s=%R", s->fields[i].name, value) : NULL;
		if (!part || PyList_Append(parts, part) < 0)
			Py_CLEAR(parts);
		Py_XDECREF(value);
		Py_XDECREF(part);
	}
	PyObject *comma = parts ? PyUnicode_FromString(", ") : NULL;
	PyObject *inside = comma ? PyUnicode_Join(comma, parts) : NULL;
	PyObject *name = inside ? PyType_GetName(Py_TYPE(self)) : NULL;
	PyObject *text = name ? PyUnicode_FromFormat("%U(%U)", name, inside) : NULL;
	Py_XDECREF(name);
	Py_XDECREF(inside);
	Py_XDECREF(comma);
	Py_XDECREF(parts);
	return text;
}

static PyObject *record_compare(PyObject *a, PyObject *b, int op, const struct schema *s)
{
	PyTypeObject *type = Py_TYPE(a);

	if ((op != Py_EQ && op != Py_NE) || (type != Py_TYPE(b) && !PyObject_TypeCheck(b, type)))
		Py_RETURN_NOTIMPLEMENTED;
	PyObject *left = record_values(a, s), *right = record_values(b, s);
	PyObject *result = left && right ? PyObject_RichCompare(left, right, op) : NULL;
	Py_XDECREF(left);
	Py_XDECREF(right);
	return result;
}

static PyObject *record_reduce(PyObject *self, const struct schema *s)
{
	PyObject *values = record_values(self, s);

	return values ? Py_BuildValue("(ON)", (PyObject *)Py_TYPE(self), values) : NULL;
}

/* The slots of one type: the generic functions above, bound to its schema. */
#define RECORD_TYPE(prefix, schema_)                                                               \
	static int prefix##_init(PyObject *self, PyObject *args, PyObject *kwargs)                 \
	{                                                                                          \
		return record_assign(self, &schema_, args, kwargs);                                \
	}                                                                                          \
	static PyObject *prefix##_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)        \
	{                                                                                          \
		(void)args;                                                                        \
		(void)kwargs;                                                                      \
		return record_new(type, &schema_);                                                 \
	}                                                                                          \
	static PyObject *prefix##_repr(PyObject *self)                                             \
	{                                                                                          \
		return record_repr(self, &schema_);                                                \
	}                                                                                          \
	static PyObject *prefix##_compare(PyObject *a, PyObject *b, int op)                        \
	{                                                                                          \
		return record_compare(a, b, op, &schema_);                                         \
	}                                                                                          \
	static PyObject *prefix##_reduce(PyObject *self, PyObject *unused)                         \
	{                                                                                          \
		(void)unused;                                                                      \
		return record_reduce(self, &schema_);                                              \
	}                                                                                          \
	static PyMethodDef prefix##_methods[] = {                                                  \
	    {"__reduce__", prefix##_reduce, METH_NOARGS, NULL}, {0}};                              \
	static PyType_Slot prefix##_slots[] = {{Py_tp_new, prefix##_new},                          \
					       {Py_tp_init, prefix##_init},                        \
					       {Py_tp_dealloc, record_dealloc},                    \
					       {Py_tp_repr, prefix##_repr},                        \
					       {Py_tp_richcompare, prefix##_compare},              \
					       {Py_tp_hash, PyObject_HashNotImplemented},          \
					       {Py_tp_methods, prefix##_methods},                  \
					       {Py_tp_getset, prefix##_getset},                    \
					       {Py_tp_doc, (void *)prefix##_doc},                  \
					       {0}}

#define GETSET(name_, table, i, doc_)                                                              \
	{                                                                                          \
		name_, field_get, field_set, doc_, (void *)&(table)[i]                             \
	}

static const char bm_doc[] =
    "BmConfig(init_timeout=120, create_timeout=120, operation_timeout=120, start_store=True,\n"
    "         start_store_only=False, dynamic_world_size=False, unified_address_space=True,\n"
    "         auto_ranking=False, rank_id=65535, flags=0)\n--\n\n"
    "Configuration of initialize().\n\n"
    "Time-outs are whole seconds, 1..4294967295. Equality and repr go by value; pickles.\n\n"
    ">>> config = BmConfig(rank_id=0)\n"
    ">>> config.auto_ranking\nFalse";

static PyGetSetDef bm_getset[] = {
    GETSET("init_timeout", bm_fields, 0, "deadline of initialize(), seconds"),
    GETSET("create_timeout", bm_fields, 1, "deadline of create(), seconds"),
    GETSET("operation_timeout", bm_fields, 2, "deadline of join() and leave(), seconds"),
    GETSET("start_store", bm_fields, 3, "rank 0 hosts the config store"),
    GETSET("start_store_only", bm_fields, 4, "host the config store and take no rank"),
    GETSET("dynamic_world_size", bm_fields, 5, "world_size is only the upper bound"),
    GETSET("unified_address_space", bm_fields, 6, "must be True"),
    GETSET("auto_ranking", bm_fields, 7, "the library assigns ranks"),
    GETSET("rank_id", bm_fields, 8, "own rank when auto_ranking is False, 0..65535"),
    GETSET("flags", bm_fields, 9, "reserved, 0"),
    {0}};

static const char shm_doc[] =
    "ShmConfig(init_timeout=120, create_timeout=120, operation_timeout=120, start_store=True,\n"
    "          flags=0)\n--\n\n"
    "Configuration of initialize().\n\n"
    "Time-outs are whole seconds, 1..4294967295. Equality and repr go by value; pickles.";

static PyGetSetDef shm_getset[] = {
    GETSET("init_timeout", shm_fields, 0, "deadline of initialize(), seconds"),
    GETSET("create_timeout", shm_fields, 1, "deadline of create(), seconds"),
    GETSET("operation_timeout", shm_fields, 2, "deadline of barrier() and all_gather(), seconds"),
    GETSET("start_store", shm_fields, 3, "rank 0 hosts the config store"),
    GETSET("flags", shm_fields, 4, "reserved, 0"),
    {0}};

static const char copy_doc[] =
    "CopyData2DParams(src=0, spitch=0, dest=0, dpitch=0, width=0, height=0)\n--\n\n"
    "height rows of width bytes, row i at src + i * spitch and dest + i * dpitch.\n\n"
    "Addresses are integers; pitches and width are bytes. Equality and repr go by value; pickles.";

static PyGetSetDef copy_getset[] = {
    GETSET("src", copy_fields, 0, "address of the first source row"),
    GETSET("spitch", copy_fields, 1, "bytes from one source row to the next"),
    GETSET("dest", copy_fields, 2, "address of the first destination row"),
    GETSET("dpitch", copy_fields, 3, "bytes from one destination row to the next"),
    GETSET("width", copy_fields, 4, "bytes in a row"),
    GETSET("height", copy_fields, 5, "rows"),
    {0}};

RECORD_TYPE(bm, bm_schema);
RECORD_TYPE(shm, shm_schema);
RECORD_TYPE(copy, copy_schema);

PyType_Spec bm_config_spec = {.name = "mf_smem.bm.BmConfig",
			      .basicsize = sizeof(struct record),
			      .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
			      .slots = bm_slots};
PyType_Spec shm_config_spec = {.name = "mf_smem.shm.ShmConfig",
			       .basicsize = sizeof(struct record),
			       .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
			       .slots = shm_slots};
PyType_Spec copy_2d_spec = {.name = "mf_smem.bm.CopyData2DParams",
			    .basicsize = sizeof(struct record),
			    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
			    .slots = copy_slots};
