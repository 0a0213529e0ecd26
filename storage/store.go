package storage

import (
	"context"
	"io"
	"iter"
	"time"
)

// Store holds every tenant's series. Methods are safe for concurrent use, never
// cross tenants, and refuse the zero Tenant. Errors are *Error, or carry one in
// their chain. A method that a backend cannot do answers KindUnsupported, never
// an empty answer.
type Store interface {
	// Append stores batch and reports what it refused. A refusal does not fail the
	// batch. After an error some of it may be stored; appending the same batch
	// again is safe. When Append returns nil everything not refused is durable as
	// the backend's configuration promises.
	Append(ctx context.Context, t Tenant, batch *Batch) (AppendResult, error)

	// Select yields the matching series that have a sample in the range, ordered by
	// labels (CompareLabels) unless s.Unsorted, samples ordered by time and within
	// the range. An error ends the sequence.
	Select(ctx context.Context, t Tenant, s Selection) iter.Seq2[Series, error]

	// SelectLabels yields the labels of the series that Select would yield, in
	// order. A backend may answer with the precision of its index: series that have
	// samples on a day of the range.
	SelectLabels(ctx context.Context, t Tenant, s Selection) iter.Seq2[Labels, error]

	// Evaluate answers a grid, or KindUnsupported where it cannot be exact: the
	// caller then uses Select (EvaluateSeries is the reference).
	Evaluate(ctx context.Context, t Tenant, g Grid) (*GridResult, error)

	// Estimate tells what Select would cost, without reading samples.
	Estimate(ctx context.Context, t Tenant, s Selection) (Estimate, error)

	// LabelNames and LabelValues list names, or the values of one label, of the
	// matching series, ascending, with SelectLabels' precision.
	LabelNames(ctx context.Context, t Tenant, s Selection) ([]string, error)
	LabelValues(ctx context.Context, t Tenant, name string, s Selection) ([]string, error)

	// Metadata lists metrics' metadata, ordered by metric.
	Metadata(ctx context.Context, t Tenant, q MetadataQuery) ([]Metadata, error)

	// Exemplars lists exemplars, series ordered by labels.
	Exemplars(ctx context.Context, t Tenant, q ExemplarQuery) ([]ExemplarSeries, error)

	// Cardinality counts series.
	Cardinality(ctx context.Context, t Tenant, q CardinalityQuery) (Cardinality, error)

	// Delete hides the matching samples of the range at once and frees them later;
	// samples appended after it returned are visible. Limits of s are not used.
	Delete(ctx context.Context, t Tenant, s Selection) (DeleteReceipt, error)

	// DeleteStatus returns the receipt of an earlier Delete, KindNotFound if there
	// is none of that id.
	DeleteStatus(ctx context.Context, t Tenant, id string) (DeleteReceipt, error)

	// Retention lists the tenant's policies, the most specific pattern first;
	// SetRetention adds or replaces one, RemoveRetention removes one by its pattern
	// (KindNotFound if there is none). A change hides or shows older data at once.
	Retention(ctx context.Context, t Tenant) ([]RetentionPolicy, error)
	SetRetention(ctx context.Context, t Tenant, p RetentionPolicy) error
	RemoveRetention(ctx context.Context, t Tenant, metric string) error

	// Cleanup applies retention now and frees what deletes left behind.
	Cleanup(ctx context.Context) (CleanupReport, error)

	// Tenants lists the tenants that have data, ordered by id.
	Tenants(ctx context.Context) ([]TenantStats, error)

	// DeleteTenant removes all data and settings of a tenant.
	DeleteTenant(ctx context.Context, t Tenant) error

	// Exchange posts a note for the other processes on the same data, unless its Body
	// is empty, and then returns the notes of all processes with an At after since:
	// at least those that were posted before the call, those of one process in the
	// order of Seq, the caller's own without their bodies. Notes are kept for two
	// hours. A backend whose data is one process's answers KindUnsupported.
	Exchange(ctx context.Context, post Note, since time.Time) ([]Note, error)

	// Health tells whether the store can serve, quickly and without side effects.
	Health(ctx context.Context) Health

	// Backup writes a verified archive of everything to w; where the database takes
	// backups itself, it has it take one and writes the manifest, with counts and hashes.
	Backup(ctx context.Context, w io.Writer) (BackupReport, error)

	// Close makes everything durable and releases it. It is idempotent.
	Close() error
}

// DeleteState is how far a delete has come.
type DeleteState string

// The states: the data is hidden from reads in every one of them.
const (
	DeleteHidden DeleteState = "hidden" // no read sees it; bytes are still on disk
	DeleteErased DeleteState = "erased" // bytes are gone, closed days included
)

// DeleteReceipt proves a delete.
type DeleteReceipt struct {
	ID            string
	State         DeleteState
	Selector      string // PromQL form of the matchers
	MinT, MaxT    int64
	MatchedSeries uint64
	CreatedAt     time.Time
	ErasedAt      time.Time // zero until erased
}

// CleanupReport tells what a Cleanup freed.
type CleanupReport struct {
	Partitions     int // whole days dropped
	Metrics        int // whole metrics of a day dropped
	DeletesErased  int
	ReclaimedBytes uint64 // as far as known
}

// TenantStats describes one tenant.
type TenantStats struct {
	Tenant           string
	ActiveSeries     uint64 // series with a sample on the current day
	SamplesPerSecond float64
	Bytes            uint64 // stored, as far as known
	LastWrite        time.Time
}

// Note is what one process tells the others that share its data.
type Note struct {
	Process string    // random, of one run of a process
	Seq     uint64    // counts the notes of the process
	At      time.Time // when it was posted, by the store's clock; set by the store
	Body    []byte    // means something to callers only
}

// NoteLife is how long a note can be read.
const NoteLife = 2 * time.Hour

// HealthStatus is a store's state in one word.
type HealthStatus string

// The states of a store.
const (
	HealthOK       HealthStatus = "ok"
	HealthReadOnly HealthStatus = "read_only" // reads work, writes are refused
	HealthDown     HealthStatus = "down"
)

// Health describes a store for probes and the health endpoint.
type Health struct {
	Backend       string
	Status        HealthStatus
	DiskUsedBytes uint64
	DiskFreeBytes uint64
	Error         string // why the status is not ok
}

// BackupReport tells what an archive holds: Bytes and SHA256 are of what was written
// to w, Entries of what was backed up.
type BackupReport struct {
	Bytes   uint64
	Entries uint64
	SHA256  string
}
