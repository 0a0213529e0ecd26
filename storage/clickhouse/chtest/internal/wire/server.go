//go:build linux

package wire

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/luminate/luminate/storage/clickhouse/chtest/internal/engine"
)

// Server answers native-protocol clients.
type Server struct {
	// Revision is announced to clients. Query parameters need 54459; 54460 is the
	// highest that clickhouse-go v2 speaks.
	Revision   int
	TmpDir     string // for the blocks of an INSERT
	EngineArgs []string
	Log        *slog.Logger
	// Check tells whether a user may enter with a password; nil lets everybody in.
	Check func(user, password string) bool

	root    *engine.Conn // control session; keeps the engine up
	rootMu  sync.Mutex
	seq     atomic.Int64
	changes atomic.Int64 // statements so far that may have changed a table
	conns   sync.Map
	wg      sync.WaitGroup
	version [3]int
	tz      string
}

// Start boots the engine, which engine.Load has loaded. One root session stays open
// as long as the server: closing the last one shuts the engine down.
func (s *Server) Start() error {
	c, err := engine.Connect(s.EngineArgs...)
	if err != nil {
		return err
	}
	s.root = c
	b, _, err := c.Query("SELECT version(), timezone()", "TSV")
	if err != nil {
		return err
	}
	f := strings.Split(strings.TrimSpace(string(b)), "\t")
	for i, p := range strings.SplitN(f[0], ".", 4)[:3] {
		s.version[i], _ = strconv.Atoi(p)
	}
	s.tz = f[1]
	return nil
}

// Serve accepts until the listener closes.
func (s *Server) Serve(l net.Listener) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		s.wg.Add(1)
		s.conns.Store(c, nil)
		go func() {
			defer s.wg.Done()
			defer s.conns.Delete(c)
			defer c.Close()
			defer func() {
				if p := recover(); p != nil {
					s.Log.Error("session panicked", "panic", p, "stack", string(debug.Stack()))
				}
			}()
			if err := s.serve(c); err != nil && !errors.Is(err, io.EOF) {
				s.Log.Debug("session ended", "peer", c.RemoteAddr().String(), "err", err)
			}
		}()
	}
}

// Close ends every session (running queries are killed) and shuts the engine down.
func (s *Server) Close() {
	s.conns.Range(func(k, _ any) bool { k.(net.Conn).Close(); return true })
	s.wg.Wait()
	s.root.Close()
}
