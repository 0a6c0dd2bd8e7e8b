/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sequences of integers for batch calls. A buffer of 8-byte integers goes to C as it is, pinned by
 * its Py_buffer for the time of the call; lists and tuples are converted element by element.
 */
#include "smem_py.h"

#include <string.h>

void vector_free(struct vector *v)
{
	if (v->buffer.obj)
		PyBuffer_Release(&v->buffer);
	PyMem_Free(v->copy);
	*v = (struct vector){0};
}

static bool native_order(char mark)
{
	const uint16_t probe = 1;
	bool little = *(const char *)&probe == 1;

	return mark == '@' || mark == '=' || mark == (little ? '<' : '>') ||
	       (!little && mark == '!');
}

/* Is the buffer's element an 8-byte integer of this machine? Size is checked by the caller. */
static bool integer_format(const char *format)
{
	if (!format)
		return false; /* unsigned bytes */
	if (strchr("@=<>!", format[0]) && format[0]) {
		if (!native_order(format[0]))
			return false;
		format++;
	}
	return strlen(format) == 1 && strchr("qQlLnNP", format[0]);
}

static bool refuse(const char *name, const char *why)
{
	PyErr_Format(PyExc_TypeError,
		     "argument '%s' must be a sequence of integers or a C-contiguous "
		     "one-dimensional buffer of 8-byte integers: %s",
		     name, why);
	return false;
}

static bool check_buffer(const Py_buffer *b, const char *name)
{
	if (b->ndim != 1)
		return refuse(name, "it has not one dimension");
	if (b->itemsize != 8)
		return refuse(name, "its items are not 8 bytes");
	if (!integer_format(b->format))
		return refuse(name, "its items are not integers in native byte order");
	Py_ssize_t count = b->len / 8;
	if (b->suboffsets || (b->strides && count > 1 && b->strides[0] != 8))
		return refuse(name, "it is not contiguous");
	return true;
}

static bool from_buffer(PyObject *o, const char *name, struct vector *v)
{
	if (PyObject_GetBuffer(o, &v->buffer, PyBUF_FULL_RO) < 0) {
		v->buffer.obj = NULL;
		if (PyErr_ExceptionMatches(PyExc_MemoryError))
			return false;
		PyErr_Clear();
		return refuse(name, "it does not give its buffer");
	}
	if (!check_buffer(&v->buffer, name))
		return false;
	v->count = (size_t)v->buffer.len / 8;
	v->items = v->buffer.buf;
	if ((uintptr_t)v->items % sizeof(uint64_t) && v->count) {
		v->copy = PyMem_Malloc((size_t)v->buffer.len);
		if (!v->copy) {
			PyErr_NoMemory();
			return false;
		}
		memcpy(v->copy, v->buffer.buf, (size_t)v->buffer.len);
		v->items = v->copy;
	}
	return true;
}

static bool element(PyObject *item, const char *name, size_t i, uint64_t *ret)
{
	unsigned long long n = (unsigned long long)-1;

	if (PyLong_Check(item)) {
		n = PyLong_AsUnsignedLongLong(item);
	} else {
		PyObject *value = PyNumber_Index(item);
		if (value) {
			n = PyLong_AsUnsignedLongLong(value);
			Py_DECREF(value);
		}
	}
	if (n == (unsigned long long)-1 && PyErr_Occurred()) {
		PyObject *type =
		    PyErr_ExceptionMatches(PyExc_OverflowError) ? PyExc_OverflowError : NULL;
		if (!type && PyErr_ExceptionMatches(PyExc_TypeError))
			type = PyExc_TypeError;
		if (!type)
			return false;
		PyErr_Clear();
		PyErr_Format(type, "argument '%s': element %zu is %R, not an integer of 0..%llu",
			     name, i, item, (unsigned long long)UINT64_MAX);
		return false;
	}
	*ret = n;
	return true;
}

/* __index__ of an element may run any code, so the list is looked at anew for each. */
static bool from_sequence(PyObject *o, const char *name, struct vector *v)
{
	PyObject *fast = PySequence_Fast(o, "not a sequence");
	if (!fast)
		return false;
	bool list = PyList_Check(fast), ok = true;
	Py_ssize_t count = list ? PyList_Size(fast) : PyTuple_Size(fast);
	v->copy = PyMem_Malloc(count ? (size_t)count * sizeof(uint64_t) : 1);
	if (!v->copy) {
		PyErr_NoMemory();
		ok = false;
	}
	for (Py_ssize_t i = 0; ok && i < count; i++) {
		PyObject *item = list ? PyList_GetItem(fast, i) : PyTuple_GetItem(fast, i);
		if (!item) {
			ok = false;
			break;
		}
		Py_INCREF(item);
		ok = element(item, name, (size_t)i, &v->copy[i]);
		Py_DECREF(item);
	}
	Py_DECREF(fast);
	v->items = v->copy;
	v->count = (size_t)count;
	return ok;
}

bool arg_vector(PyObject *o, const char *name, struct vector *ret)
{
	*ret = (struct vector){0};
	bool ok;
	if (PyList_Check(o) || PyTuple_Check(o))
		ok = from_sequence(o, name, ret);
	else if (PyObject_CheckBuffer(o))
		ok = from_buffer(o, name, ret);
	else if (PySequence_Check(o) && !PyUnicode_Check(o))
		ok = from_sequence(o, name, ret);
	else
		ok = refuse(name, "it is neither");
	if (!ok)
		vector_free(ret);
	return ok;
}
