//go:build linux

// Command chserver serves ClickHouse's native protocol from the engine as a library
// (libchdb.so), for tests on machines that have no ClickHouse. It prints "serving
// ADDRESS" on standard output once it does, and ends when its standard input ends,
// so that it never outlives the test that started it.
package main

import (
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/luminate/luminate/storage/clickhouse/chtest/internal/engine"
	"github.com/luminate/luminate/storage/clickhouse/chtest/internal/wire"
)

// revision is the protocol revision: below 54459 clickhouse-go sends no parameters.
const revision = 54460

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "chserver:", err)
		os.Exit(1)
	}
}

func run() error {
	listen := flag.String("listen", "127.0.0.1:0", "address to listen on")
	path := flag.String("path", "", "data directory, required")
	lib := flag.String("lib", "", "path of libchdb.so, required")
	remove := flag.String("remove", "", "folder to remove at the end")
	users := flag.String("users", "", "file with a user:password on each line, read at each connection; several lines of a user are all valid; empty: everybody")
	cert := flag.String("cert", "", "PEM file with certificate and key, read at each connection; empty: no TLS")
	verbose := flag.Bool("v", false, "log every query")
	flag.Parse()
	if *path == "" || *lib == "" {
		return errors.New("-path and -lib are required")
	}
	level := slog.LevelInfo
	if *verbose {
		level = slog.LevelDebug
	}
	tmp := "/dev/shm"
	if _, err := os.Stat(tmp); err != nil {
		tmp = os.TempDir()
	}
	s := &wire.Server{
		Revision: revision, TmpDir: tmp,
		Log:        slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})),
		EngineArgs: append([]string{"--path=" + *path, "--backups.allowed_path=/"}, flag.Args()...),
	}
	if *users != "" {
		s.Check = func(user, password string) bool { return listed(*users, user+":"+password) }
	}
	if err := engine.Load(*lib); err != nil {
		return fmt.Errorf("load %s: %w", *lib, err)
	}
	if err := s.Start(); err != nil {
		return fmt.Errorf("start engine: %w", err)
	}
	l, err := net.Listen("tcp", *listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	if *cert != "" {
		l = tls.NewListener(l, &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return readPair(*cert)
		}})
	}
	fmt.Printf("serving %s\n", l.Addr())
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // ends when the parent does
		stop <- syscall.SIGTERM
	}()
	go func() { _ = s.Serve(l) }() // ends with the listener, below
	<-stop
	_ = l.Close()
	s.Close()
	if *remove != "" {
		return os.RemoveAll(*remove)
	}
	return nil
}

// listed tells whether a file has such a line.
func listed(path, want string) bool {
	b, err := os.ReadFile(path)
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		if strings.TrimRight(line, "\r\n") == want {
			return true
		}
	}
	return false
}

// readPair reads certificate and key out of one file, which is replaced as a whole.
func readPair(path string) (*tls.Certificate, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(b, b)
	return &pair, err
}
