/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Arguments: positions and keywords are bound to a table of names, then each is converted by type.
 * Every message names the argument. Nothing is allocated on the way of a call by position.
 */
#include "smem_py.h"

#include <string.h>

static int param_index(const struct params *p, PyObject *key)
{
	for (int i = 0; i < p->total; i++) {
		if (PyUnicode_CompareWithASCIIString(key, p->names[i]) == 0)
			return i;
	}
	PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument '%U'", p->func, key);
	return -1;
}

static bool bind_keyword(const struct params *p, PyObject *key, PyObject *value, PyObject **out)
{
	if (!PyUnicode_Check(key)) {
		PyErr_Format(PyExc_TypeError, "%s() keywords must be strings", p->func);
		return false;
	}
	int i = param_index(p, key);
	if (i < 0)
		return false;
	if (out[i]) {
		PyErr_Format(PyExc_TypeError, "%s() got multiple values for argument '%s'", p->func,
			     p->names[i]);
		return false;
	}
	out[i] = value;
	return true;
}

static bool bind_positions(const struct params *p, Py_ssize_t nargs, PyObject **out)
{
	memset(out, 0, sizeof(*out) * (size_t)p->total);
	if (nargs <= p->total)
		return true;
	PyErr_Format(PyExc_TypeError, "%s() takes at most %d argument%s (%zd given)", p->func,
		     p->total, p->total == 1 ? "" : "s", nargs);
	return false;
}

static bool bind_required(const struct params *p, PyObject *const *out)
{
	for (int i = 0; i < p->required; i++) {
		if (!out[i]) {
			PyErr_Format(PyExc_TypeError,
				     "%s() missing required argument '%s' (pos %d)", p->func,
				     p->names[i], i + 1);
			return false;
		}
	}
	return true;
}

bool args_bind(const struct params *p, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
	       PyObject **out)
{
	if (!bind_positions(p, nargs, out))
		return false;
	for (Py_ssize_t i = 0; i < nargs; i++)
		out[i] = args[i];
	Py_ssize_t keywords = kwnames ? PyTuple_Size(kwnames) : 0;
	for (Py_ssize_t i = 0; i < keywords; i++) {
		if (!bind_keyword(p, PyTuple_GetItem(kwnames, i), args[nargs + i], out))
			return false;
	}
	return bind_required(p, out);
}

bool args_bind_dict(const struct params *p, PyObject *args, PyObject *kwargs, PyObject **out)
{
	Py_ssize_t nargs = PyTuple_Size(args);

	if (!bind_positions(p, nargs, out))
		return false;
	for (Py_ssize_t i = 0; i < nargs; i++)
		out[i] = PyTuple_GetItem(args, i);
	PyObject *key, *value;
	Py_ssize_t pos = 0;
	while (kwargs && PyDict_Next(kwargs, &pos, &key, &value)) {
		if (!bind_keyword(p, key, value, out))
			return false;
	}
	return bind_required(p, out);
}

static bool wrong_type(PyObject *o, const char *name, const char *wanted)
{
	PyObject *type = PyType_GetName(Py_TYPE(o));

	if (type)
		PyErr_Format(PyExc_TypeError, "argument '%s' must be %s, not %U", name, wanted,
			     type);
	Py_XDECREF(type);
	return false;
}

/* The int behind o, a new reference; TypeError names the argument. */
static PyObject *arg_index(PyObject *o, const char *name)
{
	if (PyLong_Check(o)) {
		Py_INCREF(o);
		return o;
	}
	if (!PyIndex_Check(o)) {
		wrong_type(o, name, "an integer");
		return NULL;
	}
	return PyNumber_Index(o);
}

static bool out_of_range(PyObject *value, const char *name, int64_t min, uint64_t max)
{
	if (!PyErr_Occurred() || PyErr_ExceptionMatches(PyExc_OverflowError)) {
		PyErr_Clear();
		PyErr_Format(PyExc_OverflowError, "argument '%s' is %S, the range is %lld..%llu",
			     name, value, (long long)min, (unsigned long long)max);
	}
	return false;
}

bool arg_unsigned(PyObject *o, const char *name, uint64_t max, uint64_t *ret)
{
	if (!o)
		return true;
	PyObject *value = arg_index(o, name);
	if (!value)
		return false;
	unsigned long long n = PyLong_AsUnsignedLongLong(value);
	bool bad = n > max || (n == (unsigned long long)-1 && PyErr_Occurred());
	if (bad)
		out_of_range(value, name, 0, max);
	else
		*ret = n;
	Py_DECREF(value);
	return !bad;
}

bool arg_signed(PyObject *o, const char *name, int64_t min, int64_t max, int64_t *ret)
{
	if (!o)
		return true;
	PyObject *value = arg_index(o, name);
	if (!value)
		return false;
	long long n = PyLong_AsLongLong(value);
	bool bad = (n == -1 && PyErr_Occurred()) || n < min || n > max;
	if (bad)
		out_of_range(value, name, min, (uint64_t)max);
	else
		*ret = n;
	Py_DECREF(value);
	return !bad;
}

bool arg_u16(PyObject *o, const char *name, uint16_t *ret)
{
	uint64_t n = *ret;
	bool ok = arg_unsigned(o, name, UINT16_MAX, &n);

	*ret = (uint16_t)n;
	return ok;
}

bool arg_u32(PyObject *o, const char *name, uint32_t *ret)
{
	uint64_t n = *ret;
	bool ok = arg_unsigned(o, name, UINT32_MAX, &n);

	*ret = (uint32_t)n;
	return ok;
}

bool arg_u64(PyObject *o, const char *name, uint64_t *ret)
{
	return arg_unsigned(o, name, UINT64_MAX, ret);
}

bool arg_i32(PyObject *o, const char *name, int32_t *ret)
{
	int64_t n = *ret;
	bool ok = arg_signed(o, name, INT32_MIN, INT32_MAX, &n);

	*ret = (int32_t)n;
	return ok;
}

/* NumPy's own bool is one too, though it is no subclass. */
static bool is_foreign_bool(PyObject *o)
{
	PyObject *type = PyType_GetQualName(Py_TYPE(o));
	bool yes = type && (PyUnicode_CompareWithASCIIString(type, "bool_") == 0 ||
			    PyUnicode_CompareWithASCIIString(type, "bool") == 0);

	Py_XDECREF(type);
	PyErr_Clear();
	return yes;
}

bool arg_bool(PyObject *o, const char *name, bool *ret)
{
	if (!o)
		return true;
	if (!PyLong_Check(o) && !is_foreign_bool(o))
		return wrong_type(o, name, "a bool");
	int yes = PyObject_IsTrue(o);
	if (yes < 0)
		return false;
	*ret = yes;
	return true;
}

bool arg_instance(PyObject *o, const char *name, PyObject *type)
{
	int yes = PyObject_IsInstance(o, type);

	if (yes > 0)
		return true;
	if (yes == 0) {
		PyObject *wanted = PyType_GetName((PyTypeObject *)type);
		PyObject *given = PyType_GetName(Py_TYPE(o));
		if (wanted && given)
			PyErr_Format(PyExc_TypeError, "argument '%s' must be a %U, not %U", name,
				     wanted, given);
		Py_XDECREF(wanted);
		Py_XDECREF(given);
	}
	return false;
}

bool arg_callable(PyObject *o, const char *name)
{
	return PyCallable_Check(o) || wrong_type(o, name, "callable");
}

/* Zero bytes would end the text early and lone surrogates have no UTF-8: '?' is in no grammar. */
static bool text_mangled(PyObject *o, struct text *ret)
{
	char *bytes;
	Py_ssize_t length;

	PyErr_Clear();
	PyObject *plain = PyUnicode_AsEncodedString(o, "utf-8", "replace");
	if (!plain)
		return false;
	PyObject *copy = NULL;
	if (PyBytes_AsStringAndSize(plain, &bytes, &length) == 0)
		copy = PyBytes_FromStringAndSize(bytes, length);
	Py_DECREF(plain);
	if (!copy)
		return false;
	bytes = PyBytes_AsString(copy);
	for (Py_ssize_t i = 0; i < length; i++) {
		if (!bytes[i])
			bytes[i] = '?';
	}
	*ret = (struct text){.s = bytes, .owner = copy};
	return true;
}

bool arg_text(PyObject *o, const char *name, struct text *ret)
{
	Py_ssize_t length;

	if (!PyUnicode_Check(o))
		return wrong_type(o, name, "str");
	const char *s = PyUnicode_AsUTF8AndSize(o, &length);
	if (!s || strlen(s) != (size_t)length)
		return text_mangled(o, ret);
	Py_INCREF(o);
	*ret = (struct text){.s = s, .owner = o};
	return true;
}

void text_free(struct text *t)
{
	Py_CLEAR(t->owner);
}

bool arg_bytes(PyObject *o, const char *name, Py_buffer *ret)
{
	if (!PyObject_CheckBuffer(o))
		return wrong_type(o, name, "bytes or another contiguous buffer");
	if (PyObject_GetBuffer(o, ret, PyBUF_SIMPLE) == 0)
		return true;
	if (PyErr_ExceptionMatches(PyExc_BufferError) || PyErr_ExceptionMatches(PyExc_ValueError)) {
		PyErr_Clear();
		PyErr_Format(PyExc_TypeError, "argument '%s' must be a contiguous buffer", name);
	}
	return false;
}
