//go:build linux

package engine

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"unsafe"

	"github.com/ebitengine/purego"
)

// C signatures (chdb.h, libchdb 26.5):
//
//	typedef struct { void *internal_data; } *chdb_connection;   // opaque handle
//	typedef struct chdb_result_ chdb_result;                     // opaque
//	chdb_connection *chdb_connect(int argc, char **argv);        // pointer TO the handle
//	void  chdb_close_conn(chdb_connection *conn);                // takes the pointer
//	chdb_result *chdb_query_with_params_n(chdb_connection, const char *q, size_t qlen, const char *fmt, size_t fmtlen,
//	        const char *const *names, const size_t *name_lens, const char *const *values, const size_t *value_lens, size_t n);
//	chdb_result *chdb_stream_query_with_params_n(same arguments);
//	chdb_result *chdb_stream_fetch_result(chdb_connection, chdb_result *stream);
//	void  chdb_stream_cancel_query(chdb_connection, chdb_result *stream);
//	void  chdb_destroy_query_result(chdb_result *);
//	char *chdb_result_buffer(chdb_result *);  size_t chdb_result_length(chdb_result *);
//	const char *chdb_result_error(chdb_result *);
//	uint64_t chdb_result_{rows_read,bytes_read,storage_rows_read,storage_bytes_read,rows_written,bytes_written}(chdb_result *);
//	void  chdb_set_signal_handlers_enabled(int);  void chdb_reset_signal_handlers(void);
var (
	fnConnect, fnClose, fnQuery, fnStream, fnFetch, fnCancel, fnDestroy uintptr
	fnBuf, fnLen, fnErr, fnRows, fnBytes, fnSRows, fnSBytes             uintptr
	fnWRows, fnWBytes, fnSig                                            uintptr
	loadOnce                                                            sync.Once
	loadErr                                                             error
	connectMu                                                           sync.Mutex
)

// Load opens the library once.
func Load(path string) error {
	loadOnce.Do(func() {
		h, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_LOCAL)
		if err != nil {
			loadErr = err
			return
		}
		for name, p := range map[string]*uintptr{
			"chdb_connect": &fnConnect, "chdb_close_conn": &fnClose,
			"chdb_query_with_params_n": &fnQuery, "chdb_stream_query_with_params_n": &fnStream,
			"chdb_stream_fetch_result": &fnFetch, "chdb_stream_cancel_query": &fnCancel,
			"chdb_destroy_query_result": &fnDestroy, "chdb_result_buffer": &fnBuf, "chdb_result_length": &fnLen,
			"chdb_result_error": &fnErr, "chdb_result_rows_read": &fnRows, "chdb_result_bytes_read": &fnBytes,
			"chdb_result_storage_rows_read": &fnSRows, "chdb_result_storage_bytes_read": &fnSBytes,
			"chdb_result_rows_written": &fnWRows, "chdb_result_bytes_written": &fnWBytes,
			"chdb_set_signal_handlers_enabled": &fnSig,
		} {
			if *p, err = purego.Dlsym(h, name); err != nil {
				loadErr = fmt.Errorf("%s: %w", name, err)
				return
			}
		}
		// Keep Go's own handlers: the call below resets eight signals to SIG_DFL.
		keepSignals(func() { call(fnSig, 0) })
	})
	return loadErr
}

// call enters C on an OS thread of its own for as long as it runs.
func call(fn uintptr, args ...uintptr) uintptr {
	r, _, _ := purego.SyscallN(fn, args...)
	return r
}

// cptr turns an address of C memory into a pointer, which Go's collector ignores.
func cptr(p uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&p)) }

// Conn is one engine session. Not safe for concurrent use.
type Conn struct{ pp uintptr }

// Connect opens a session; args are clickhouse-local style ("--path=...", "--max_threads=2").
func Connect(args ...string) (*Conn, error) {
	args = append([]string{"clickhouse"}, args...)
	bufs := make([][]byte, len(args))
	ptrs := cwords(len(args) + 1)
	for i, a := range args {
		bufs[i] = cbytes(a)
		ptrs[i] = uintptr(unsafe.Pointer(&bufs[i][0]))
	}
	connectMu.Lock()
	defer connectMu.Unlock()
	var pp uintptr
	keepSignals(func() { pp = call(fnConnect, uintptr(len(args)), uintptr(unsafe.Pointer(&ptrs[0]))) })
	runtime.KeepAlive(bufs)
	runtime.KeepAlive(ptrs)
	if pp == 0 {
		return nil, errors.New("chdb_connect failed")
	}
	return &Conn{pp}, nil
}

func (c *Conn) handle() uintptr { return *(*uintptr)(cptr(c.pp)) }

// Close ends the session. Closing the last one shuts the engine down.
func (c *Conn) Close() {
	if c.pp != 0 {
		call(fnClose, c.pp)
		c.pp = 0
	}
}

// cbytes and cwords return memory on the heap, never on a goroutine stack, which could move
// between taking the address as a uintptr and entering C.
//
//go:noinline
func cbytes(s string) []byte { b := make([]byte, len(s)+1); copy(b, s); return b }

//go:noinline
func cwords(n int) []uintptr { return make([]uintptr, n) }

// Param is a server-side bound {name:Type} value, in escaped-text form.
type Param struct{ Name, Value string }

// Stats are the counters of one result.
type Stats struct{ Rows, Bytes, ReadRows, ReadBytes, WrittenRows, WrittenBytes uint64 }

func start(fn, h uintptr, query, format string, params []Param) uintptr {
	q, f := cbytes(query), cbytes(format)
	n := len(params)
	arr := cwords(4*n + 1)
	hold := make([][]byte, 0, 2*n)
	for i, p := range params {
		a, b := cbytes(p.Name), cbytes(p.Value)
		hold = append(hold, a, b)
		arr[i], arr[n+i] = uintptr(unsafe.Pointer(&a[0])), uintptr(len(p.Name))
		arr[2*n+i], arr[3*n+i] = uintptr(unsafe.Pointer(&b[0])), uintptr(len(p.Value))
	}
	at := func(i int) uintptr {
		if n == 0 {
			return 0
		}
		return uintptr(unsafe.Pointer(&arr[i*n]))
	}
	r := call(fn, h, uintptr(unsafe.Pointer(&q[0])), uintptr(len(q)-1), uintptr(unsafe.Pointer(&f[0])), uintptr(len(f)-1),
		at(0), at(1), at(2), at(3), uintptr(n))
	runtime.KeepAlive(q)
	runtime.KeepAlive(f)
	runtime.KeepAlive(arr)
	runtime.KeepAlive(hold)
	return r
}

func resErr(r uintptr) error {
	if r == 0 {
		return errors.New("engine returned no result")
	}
	if p := call(fnErr, r); p != 0 {
		if s := cstr(p); s != "" {
			return errors.New(s)
		}
	}
	return nil
}

func cstr(p uintptr) string {
	n := 0
	for *(*byte)(cptr(p + uintptr(n))) != 0 {
		n++
	}
	return string(unsafe.Slice((*byte)(cptr(p)), n))
}

func resBytes(r uintptr) []byte {
	n, p := call(fnLen, r), call(fnBuf, r)
	if n == 0 || p == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(cptr(p)), int(n))
}

func resStats(r uintptr) Stats {
	return Stats{uint64(call(fnRows, r)), uint64(call(fnBytes, r)), uint64(call(fnSRows, r)), uint64(call(fnSBytes, r)),
		uint64(call(fnWRows, r)), uint64(call(fnWBytes, r))}
}

// Query runs a statement to its end and returns a copy of the whole output.
func (c *Conn) Query(query, format string, params ...Param) ([]byte, Stats, error) {
	r := start(fnQuery, c.handle(), query, format, params)
	if r != 0 {
		defer call(fnDestroy, r)
	}
	if err := resErr(r); err != nil {
		return nil, Stats{}, err
	}
	return append([]byte(nil), resBytes(r)...), resStats(r), nil
}

// Stream runs a statement and hands each output chunk to fn; the bytes are valid only during fn.
func (c *Conn) Stream(query, format string, params []Param, fn func([]byte, Stats) error) error {
	h := c.handle()
	s := start(fnStream, h, query, format, params)
	if s != 0 {
		defer call(fnDestroy, s)
	}
	if err := resErr(s); err != nil {
		return err
	}
	for {
		r := call(fnFetch, h, s)
		if err := resErr(r); err != nil {
			if r != 0 {
				call(fnDestroy, r)
			}
			return err
		}
		b, st := resBytes(r), resStats(r)
		if len(b) == 0 {
			call(fnDestroy, r)
			return nil
		}
		err := fn(b, st)
		call(fnDestroy, r)
		if err != nil {
			call(fnCancel, h, s)
			return err
		}
	}
}
