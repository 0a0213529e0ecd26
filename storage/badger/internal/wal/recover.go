package wal

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
)

// Damage is one stretch of the log that recovery could not read.
type Damage struct {
	// Segment is the file's base name; empty when the log's beginning is missing.
	Segment string
	Offset  int64
	Bytes   int64
	// FirstLost to LastLost are the missing LSNs; both 0 when none is missing, or
	// when LostUnknown.
	FirstLost, LastLost uint64
	// LostUnknown is set when no later record tells how many are missing.
	LostUnknown bool
	Reason      string
	// Kept is the base name under which the damaged file stays as evidence.
	Kept string
}

// Lost is the number of records that are missing.
func (d Damage) Lost() uint64 {
	if d.FirstLost == 0 {
		return 0
	}
	return d.LastLost - d.FirstLost + 1
}

// RecoveryReport tells what Open found.
type RecoveryReport struct {
	Segments int
	Records  uint64 // handed to replay
	Bytes    int64
	// FirstLSN and LastLSN of the records handed to replay; 0 when there are none.
	FirstLSN, LastLSN uint64
	// TornBytes were cut from the end of the last segment: a group that was being
	// written when the process died and was never acknowledged, or damage to the
	// very last record, which cannot be told from it.
	// TornFile is set also when the segment was still empty (0 bytes).
	TornBytes int64
	TornFile  string
	// Damages are told once, by the start that finds them.
	Damages []Damage
	// LostRecords is the sum over Damages.
	LostRecords uint64
	// KnownLost counts records that earlier starts reported as lost and whose
	// place in the log has not been truncated yet.
	KnownLost uint64
	// Kept are the paths of all damaged segments kept aside, older ones too. An
	// operator may remove them; nothing else does.
	Kept []string
	// RepairErrors tell of damaged segments that could not be rewritten (a full
	// disk, say). They stay in place and will be reported again.
	RepairErrors []error
}

// Clean tells whether every record was there. A torn tail is clean.
func (r *RecoveryReport) Clean() bool { return len(r.Damages) == 0 }

// Open recovers the log in dir, which is made if need be, and calls replay with
// every readable record in LSN order. A replay error ends Open.
//
// after is the LSN up to which the caller holds everything elsewhere (in its
// snapshot); 0: nothing. A log that begins above after+1 is reported as damaged.
// Records up to after are replayed too if they are still there.
//
// A segment of another format version is refused with a *VersionError before
// anything is replayed or changed. Damage is no error: see RecoveryReport.
func Open(dir string, cfg Config, after uint64, log *slog.Logger, replay func(Record) error) (*Log, RecoveryReport, error) {
	return open(osFS{}, dir, cfg, after, log, replay)
}

func open(fs fileSystem, dir string, cfg Config, after uint64, log *slog.Logger, replay func(Record) error) (*Log, RecoveryReport, error) {
	if err := cfg.Validate(); err != nil {
		return nil, RecoveryReport{}, fmt.Errorf("open log: %w", err)
	}
	if err := makeDir(fs, dir); err != nil {
		return nil, RecoveryReport{}, fmt.Errorf("open log: %w", err)
	}
	r := &recovery{fs: fs, dir: dir, log: log, replay: replay, next: after + 1}
	if err := r.run(after); err != nil {
		return nil, r.report, fmt.Errorf("open log %s: %w", dir, err)
	}
	if err := r.settle(cfg.Sync); err != nil {
		return nil, r.report, fmt.Errorf("open log %s: %w", dir, err)
	}
	l := &Log{dir: dir, cfg: cfg, fs: fs, next: r.next, segments: r.segments}
	for _, s := range l.segments {
		l.size.Add(s.Bytes)
	}
	l.last.Store(l.next - 1)
	// The LSNs of what was cut may be in the caller's blocks already.
	l.AdvanceLSN(max(after, r.next-1+r.skip))
	return l, r.report, nil
}

// makeDir makes dir and puts its name on stable storage.
func makeDir(fs fileSystem, dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, dirPerm); err != nil {
		return err
	}
	return fs.SyncDir(filepath.Dir(dir))
}

// recovery is the state of one Open.
type recovery struct {
	fs       fileSystem
	dir      string
	log      *slog.Logger
	replay   func(Record) error
	report   RecoveryReport
	segments []SegmentInfo
	next     uint64 // LSN expected next
	skip     uint64 // LSNs to leave out because cut bytes may have held them
	dirty    bool   // the directory needs a sync
}

func (r *recovery) run(after uint64) error {
	files, err := list(r.dir, segmentSuffix)
	if err != nil {
		return err
	}
	if err := checkVersions(files.files); err != nil {
		return err
	}
	for _, tmp := range files.tmp {
		if err := r.fs.Remove(tmp); err != nil {
			return err
		}
	}
	if len(files.files) > 0 {
		first := files.files[0].FirstLSN
		if first > after+1 {
			r.damage(Damage{FirstLost: after + 1, LastLost: first - 1, Reason: "beginning of the log is missing"})
		}
		r.next = first
	}
	for i, s := range files.files {
		limit := uint64(math.MaxUint64)
		last := i == len(files.files)-1
		if !last {
			limit = files.files[i+1].FirstLSN
		}
		if err := r.segment(s, limit, last); err != nil {
			return fmt.Errorf("recover %s: %w", filepath.Base(s.Path), err)
		}
	}
	return nil
}

// checkVersions refuses the whole log before any of it is replayed.
func checkVersions(files []SegmentInfo) error {
	for _, s := range files {
		h, copies, err := readHeader(s.Path)
		if err != nil {
			return err
		}
		if copies > 0 && h.first != s.FirstLSN {
			return fmt.Errorf("segment %s begins at LSN %d: it was renamed or copied", s.Path, h.first)
		}
	}
	return nil
}

func readHeader(path string) (h segmentHeader, copies int, err error) {
	f, err := os.Open(path)
	if err != nil {
		return h, 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	buf := make([]byte, headerBytes)
	n, err := io.ReadFull(f, buf)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return h, 0, err
	}
	return parseSegmentHeader(buf[:n], path)
}

// segment replays one segment, reports its damage and repairs it.
func (r *recovery) segment(s SegmentInfo, limit uint64, last bool) (err error) {
	f, err := os.Open(s.Path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	h, copies, err := readHeader(s.Path)
	if err != nil {
		return err
	}
	r.report.Segments++
	r.report.Bytes += s.Bytes
	if copies == 0 || (last && s.Bytes < headerBytes) {
		return r.headerless(f, s, limit, last)
	}
	res, err := newScanner(f, s.Bytes, h, limit).run(r.emit)
	if err != nil {
		return err
	}
	r.next = res.next
	holes := res.holes
	if copies == 1 {
		holes = append(holes, hole{first: 1, reason: "one of two headers unreadable"})
	}
	tail := s.Bytes - res.end
	if last && !res.gaveUp {
		if tail != 0 {
			r.torn(s, tail)
		}
		if copies == 1 && res.frames == 0 {
			// The power went before the first group was synced.
			r.report.TornFile = filepath.Base(s.Path)
			r.dirty = true
			return r.fs.Remove(s.Path)
		}
		if len(holes) > 0 {
			return r.repair(s, h, limit, holes)
		}
		return r.cut(s, res)
	}
	if tail > 0 || (!last && res.next < limit) {
		holes = append(holes, tailHole(res, tail, limit, last))
	}
	if len(holes) > 0 {
		return r.repair(s, h, limit, holes)
	}
	s.LastLSN = res.next - 1
	r.segments = append(r.segments, s)
	return nil
}

// tailHole is the hole between the last sound frame and what follows the segment.
func tailHole(res scanResult, tail int64, limit uint64, last bool) hole {
	h := hole{off: res.end, bytes: max(tail, 0), first: res.next, last: limit - 1, reason: "end of segment unreadable"}
	switch {
	case last:
		h.last, h.reason = math.MaxUint64, "too much damage to search"
	case tail <= 0:
		h.reason = "records missing"
	}
	return h
}

// emit hands a frame to replay and counts it.
func (r *recovery) emit(frame []byte, _ int64) error {
	lsn := frameLSN(frame)
	if frameType(frame) == typeGap {
		if frameBody(frame)[8] == gapLost {
			r.report.KnownLost += lsn - frameFirst(frame) + 1
		}
		return nil
	}
	if r.report.Records == 0 {
		r.report.FirstLSN = lsn
	}
	r.report.LastLSN = lsn
	r.report.Records++
	if err := r.replay(Record{LSN: lsn, Type: frameType(frame), Payload: frameBody(frame)}); err != nil {
		return fmt.Errorf("replay record %d: %w", lsn, err)
	}
	return nil
}

func (r *recovery) damage(d Damage) {
	r.report.Damages = append(r.report.Damages, d)
	r.report.LostRecords += d.Lost()
}

// torn accounts for bytes without a record at the log's end.
func (r *recovery) torn(s SegmentInfo, bytes int64) {
	r.report.TornBytes = bytes
	r.report.TornFile = filepath.Base(s.Path)
	r.skip = uint64(bytes)/frameHeaderBytes + 1
	r.log.Warn("log tail was cut", "segment", r.report.TornFile, "bytes", bytes)
}
