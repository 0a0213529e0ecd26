package clickhouse

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/luminate/luminate/storage"
)

// manifestHead begins a manifest; the SHA-256 of the JSON after it ends the line.
const manifestHead = "luminate-clickhouse-backup 1 "

// maxManifestBytes bounds what ReadManifest takes.
const maxManifestBytes = 1 << 30

// Manifest says what one backup holds: it is what Store.Backup writes, and it lies in
// the first shard's backup, too, as table backup_manifest.
type Manifest struct {
	Name          string    `json:"name"`
	Taken         time.Time `json:"taken"`
	SchemaVersion string    `json:"schemaVersion"`
	LocalityLabel string    `json:"localityLabel"`
	// Shards has one element for each shard, in the order of the configuration.
	Shards []ShardManifest `json:"shards"`
}

// ShardManifest says what the backup of one shard holds.
type ShardManifest struct {
	Prints []Print `json:"prints"`
}

// Print is the count and hash of what one table holds of one tenant and UTC day.
type Print struct {
	Table  string `json:"table"`
	Tenant string `json:"tenant"`
	Day    int64  `json:"day"` // days since 1970-01-01; 0 where the table has none
	// Class is the retention class in days; 0 is for ever.
	Class uint16 `json:"class"`
	Rows  uint64 `json:"rows"`
	// Hash is the sum modulo 2^64 of a hash of each row, so it depends on no order.
	Hash uint64 `json:"hash"`
}

// printKey is what a Print counts.
type printKey struct {
	table, tenant string
	day           int64
	class         uint16
}

func (p Print) key() printKey { return printKey{p.Table, p.Tenant, p.Day, p.Class} }

// Rows is how many rows of all tables the backup holds, duplicates counted once.
func (m *Manifest) Rows() (n uint64) {
	for _, sh := range m.Shards {
		for _, p := range sh.Prints {
			n += p.Rows
		}
	}
	return n
}

// encode returns the manifest with its checksum.
func (m *Manifest) encode() ([]byte, error) {
	body, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(body)
	return append([]byte(manifestHead+hex.EncodeToString(sum[:])+"\n"), append(body, '\n')...), nil
}

// ReadManifest reads what Store.Backup wrote; damage is KindInvalid.
func ReadManifest(r io.Reader) (*Manifest, error) {
	invalid := func(format string, args ...any) error {
		return storage.Errorf(storage.KindInvalid, "read manifest", format, args...)
	}
	text, err := io.ReadAll(io.LimitReader(r, maxManifestBytes))
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	head, body, ok := bytes.Cut(text, []byte("\n"))
	want, known := strings.CutPrefix(string(head), manifestHead)
	if !ok || !known {
		return nil, invalid("this is no manifest of a ClickHouse backup")
	}
	body, whole := bytes.CutSuffix(body, []byte("\n"))
	if sum := sha256.Sum256(body); !whole || hex.EncodeToString(sum[:]) != want {
		return nil, invalid("the manifest is damaged: its SHA-256 is another")
	}
	m := &Manifest{}
	if err := json.Unmarshal(body, m); err != nil {
		return nil, invalid("the manifest is damaged: %v", err)
	}
	if !backupName.MatchString(m.Name) {
		return nil, invalid("the manifest has the name %q", m.Name)
	}
	return m, nil
}

// compare tells what a shard has that the manifest has not, and the other way round.
// What the tables' TTL may have dropped by now is left out and counted.
func (sh ShardManifest) compare(have []Print, now time.Time) (different []string, expired int) {
	today := dayOf(now.UnixMilli())
	gone := func(p Print) bool { return p.Class != 0 && p.Day+int64(p.Class) <= today }
	got := map[printKey]Print{}
	for _, p := range have {
		got[p.key()] = p
	}
	for _, want := range sh.Prints {
		p := got[want.key()]
		delete(got, want.key())
		switch {
		case gone(want):
			expired++
		case p.Rows != want.Rows || p.Hash != want.Hash:
			different = append(different, fmt.Sprintf("%s of tenant %q, day %d: %d rows with hash %016x, the backup had %d with %016x",
				want.Table, want.Tenant, want.Day, p.Rows, p.Hash, want.Rows, want.Hash))
		}
	}
	for _, p := range got {
		if !gone(p) {
			different = append(different, fmt.Sprintf("%s of tenant %q, day %d: %d rows that the backup had not", p.Table, p.Tenant, p.Day, p.Rows))
		}
	}
	return different, expired
}
