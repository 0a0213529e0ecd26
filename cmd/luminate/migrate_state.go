package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/luminate/luminate/storage"
)

// migrateStateVersion is the version of the state file's form.
const migrateStateVersion = 1

// dayRecord tells of one finished day of a tenant.
type dayRecord struct {
	Tenant string `json:"tenant"`
	Day    string `json:"day"`
	// Source is all that was read, Arrived what the destination had afterwards.
	Source  fingerprint `json:"source"`
	Arrived fingerprint `json:"arrived"`
	// Refused counts what the destination did not take.
	Refused map[storage.RefusalReason]uint64 `json:"refused,omitempty"`
	// Equal says that Arrived is Source without what was refused.
	Equal bool `json:"equal"`
}

// migrateState remembers finished days in a file that is replaced as a whole.
type migrateState struct {
	path    string
	file    stateFile
	byDay   map[string]int // position in file.Days
	dirty   bool
	saved   time.Time
	savedIn time.Duration
}

type stateFile struct {
	Version int         `json:"version"`
	From    string      `json:"from"`
	To      string      `json:"to"`
	Days    []dayRecord `json:"days"`
}

// openMigrateState reads the file, if there is one; it must be of the same source
// and destination. Without a path nothing is kept.
func openMigrateState(path, from, to string) (*migrateState, error) {
	s := &migrateState{path: path, byDay: map[string]int{}, file: stateFile{Version: migrateStateVersion, From: from, To: to}}
	if path == "" {
		return s, nil
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the state of the migration: %w", err)
	}
	var f stateFile
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, fmt.Errorf("read the state of the migration in %s: %w", path, err)
	}
	if f.Version != migrateStateVersion {
		return nil, fmt.Errorf("the state of the migration in %s has version %d, this program knows %d", path, f.Version, migrateStateVersion)
	}
	if f.From != from || to != "" && f.To != to {
		return nil, fmt.Errorf("the state in %s is of a migration from %s to %s, not from %s to %s: name another file with --state", path, f.From, f.To, from, to)
	}
	s.file.Days = f.Days
	for i, d := range f.Days {
		s.byDay[d.Tenant+"/"+d.Day] = i
	}
	return s, nil
}

func (s *migrateState) day(t storage.Tenant, day int64) (dayRecord, bool) {
	i, ok := s.byDay[t.String()+"/"+dayName(day)]
	if !ok {
		return dayRecord{}, false
	}
	return s.file.Days[i], true
}

// finish records a day. The file is written at once, unless writing it takes more
// than a twentieth of the time: a day that is missing in it is only copied again.
func (s *migrateState) finish(r dayRecord) error {
	key := r.Tenant + "/" + r.Day
	if i, ok := s.byDay[key]; ok {
		s.file.Days[i] = r
	} else {
		s.byDay[key] = len(s.file.Days)
		s.file.Days = append(s.file.Days, r)
	}
	s.dirty = true
	if time.Since(s.saved) < 20*s.savedIn {
		return nil
	}
	return s.save()
}

// save replaces the file, if there is news.
func (s *migrateState) save() error {
	if s.path == "" || !s.dirty {
		return nil
	}
	began := time.Now()
	b, err := json.MarshalIndent(s.file, "", " ")
	if err != nil {
		return fmt.Errorf("write the state of the migration: %w", err)
	}
	if err := replaceFile(s.path, append(b, '\n')); err != nil {
		return fmt.Errorf("write the state of the migration: %w", err)
	}
	s.dirty, s.saved, s.savedIn = false, time.Now(), time.Since(began)
	return nil
}

// replaceFile makes the bytes the content of path: all of them, or none.
func replaceFile(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".luminate-migrate-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
