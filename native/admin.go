package native

import (
	"context"
	"io"
	"net/http"
	"time"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/tenancy"
)

// right is what an administrative route demands beyond the scope admin, which the
// middleware checks by the route.
type right uint8

const (
	rightRead        right = iota // shows
	rightDestructive              // changes or deletes: needs authentication, or admin.enable
	rightNarrowed                 // deletes what the token can see, and so is open to a narrowed one
)

func forbidden(format string, args ...any) *Error {
	return errorf(http.StatusForbidden, CodeForbidden, format, args...)
}

// adminIdentity checks that the caller may administer at all.
func (a *API) adminIdentity(r *http.Request, need right) (tenancy.Identity, error) {
	id, ok := tenancy.FromContext(r.Context())
	switch {
	case !ok:
		return id, errorf(http.StatusUnauthorized, CodeUnauthorized, "no identity")
	case id.Authenticated && !id.Has(tenancy.ScopeAdmin):
		return id, forbidden("the token lacks the scope admin")
	case id.Authenticated && len(id.Matchers) > 0 && need != rightNarrowed:
		return id, forbidden("a token that sees only some series cannot administer its tenant")
	case !id.Authenticated && need != rightRead && !a.cfg.AdminEnable:
		return id, forbidden("without authentication this route is closed until admin.enable is set")
	}
	return id, nil
}

// adminTenant returns the tenant that a route works on and the context to do it
// in: the caller's own, or the named one for an operator. Without authentication
// there is one user, and the name may be any.
func (a *API) adminTenant(r *http.Request, named string, need right) (context.Context, storage.Tenant, error) {
	id, err := a.adminIdentity(r, need)
	if err != nil {
		return nil, storage.Tenant{}, err
	}
	if named != "" && named != id.Tenant.String() {
		if id.Authenticated && !id.Has(tenancy.ScopeOperator) {
			return nil, storage.Tenant{}, forbidden("the scope operator is needed for tenant %q", clipText(named))
		}
		t, err := storage.ParseTenant(named)
		if err != nil {
			return nil, storage.Tenant{}, err
		}
		id.Tenant = t
	}
	if err := id.Tenant.Validate(); err != nil {
		return nil, storage.Tenant{}, err
	}
	id.Federated = nil
	return tenancy.NewContext(r.Context(), id), id.Tenant, nil
}

// operator checks that the caller may see or touch every tenant.
func (a *API) operator(r *http.Request, need right) error {
	id, err := a.adminIdentity(r, need)
	if err == nil && id.Authenticated && !id.Has(tenancy.ScopeOperator) {
		return forbidden("the scope operator is needed: this concerns every tenant")
	}
	return err
}

// audit tells what was done to a tenant's data or settings, for the call's one audit line.
func (a *API) audit(ctx context.Context, action string, args ...any) {
	tenancy.NoteAudit(ctx, append([]any{"action", action}, args...)...)
}

// TenantInfo is a tenant in the answer of GET /api/v1/admin/tenants.
type TenantInfo struct {
	Tenant           string     `json:"tenant"`
	Series           uint64     `json:"series"` // with a sample on the current day
	SamplesPerSecond float64    `json:"samplesPerSecond"`
	Bytes            uint64     `json:"bytes"`
	LastWrite        *time.Time `json:"lastWrite"`
}

// serveTenants lists every tenant to an operator, to an admin his own.
func (a *API) serveTenants(w http.ResponseWriter, r *http.Request) error {
	id, err := a.adminIdentity(r, rightRead)
	if err != nil {
		return err
	}
	all, err := a.store.Tenants(r.Context())
	if err != nil {
		return err
	}
	out := []TenantInfo{}
	for _, x := range all {
		if id.Authenticated && !id.Has(tenancy.ScopeOperator) && x.Tenant != id.Tenant.String() {
			continue
		}
		info := TenantInfo{Tenant: x.Tenant, Series: x.ActiveSeries, SamplesPerSecond: x.SamplesPerSecond, Bytes: x.Bytes}
		if !x.LastWrite.IsZero() {
			info.LastWrite = &x.LastWrite
		}
		out = append(out, info)
	}
	writeJSON(w, http.StatusOK, out)
	return nil
}

// TenantDeleted is the answer of DELETE /api/v1/admin/tenants/{tenant}.
type TenantDeleted struct {
	Tenant  string `json:"tenant"`
	Deleted bool   `json:"deleted"`
}

func (a *API) serveDeleteTenant(w http.ResponseWriter, r *http.Request) error {
	ctx, t, err := a.adminTenant(r, pathVar(r, "tenant"), rightDestructive)
	if err != nil {
		return err
	}
	if err := a.store.DeleteTenant(ctx, t); err != nil {
		return err
	}
	a.audit(ctx, "delete tenant", "target", t.String())
	writeJSON(w, http.StatusOK, TenantDeleted{Tenant: t.String(), Deleted: true})
	return nil
}

// Receipt proves a delete: reads stop seeing the data at once, and the state ends
// in "erased".
type Receipt struct {
	ID            string              `json:"id"`
	State         storage.DeleteState `json:"state"`
	Selector      string              `json:"selector"`
	MinTime       int64               `json:"minTime"`
	MaxTime       int64               `json:"maxTime"`
	MatchedSeries uint64              `json:"matchedSeries"`
	CreatedAt     time.Time           `json:"createdAt"`
	ErasedAt      *time.Time          `json:"erasedAt,omitempty"`
}

func newReceipt(d storage.DeleteReceipt) Receipt {
	r := Receipt{
		ID: d.ID, State: d.State, Selector: d.Selector, MinTime: d.MinT, MaxTime: d.MaxT,
		MatchedSeries: d.MatchedSeries, CreatedAt: d.CreatedAt,
	}
	if !d.ErasedAt.IsZero() {
		r.ErasedAt = &d.ErasedAt
	}
	return r
}

// serveDeleteMetric deletes a metric's samples before a time, all of them without
// one. The name is literal: there is no pattern to get wrong.
func (a *API) serveDeleteMetric(w http.ResponseWriter, r *http.Request) error {
	ctx, t, err := a.adminTenant(r, r.URL.Query().Get("tenant"), rightNarrowed)
	if err != nil {
		return err
	}
	before, err := timeParam(r.URL.Query(), "before", maxTime)
	if err != nil {
		return err
	}
	metric := pathVar(r, "name")
	// The store narrows it, too; to say it twice costs nothing and deletes no more.
	id, _ := tenancy.FromContext(ctx)
	d, err := a.store.Delete(ctx, t, storage.Selection{
		Matchers: append([]*storage.Matcher{nameMatcher(metric)}, id.Matchers...), MinT: minTime, MaxT: before - 1,
	})
	if err != nil {
		return err
	}
	a.audit(ctx, "delete metric", "metric", metric, "before", before, "receipt", d.ID, "series", d.MatchedSeries)
	writeJSON(w, http.StatusAccepted, newReceipt(d))
	return nil
}

func (a *API) serveDeleteStatus(w http.ResponseWriter, r *http.Request) error {
	ctx, t, err := a.adminTenant(r, r.URL.Query().Get("tenant"), rightRead)
	if err != nil {
		return err
	}
	d, err := a.store.DeleteStatus(ctx, t, pathVar(r, "id"))
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, newReceipt(d))
	return nil
}

// CleanupResponse is the answer of POST /api/v1/admin/cleanup.
type CleanupResponse struct {
	Partitions     int    `json:"partitions"`
	Metrics        int    `json:"metrics"`
	DeletesErased  int    `json:"deletesErased"`
	ReclaimedBytes uint64 `json:"reclaimedBytes"`
}

// serveCleanup applies the retention of every tenant now. It frees only what no
// read sees any more, so that any admin may ask for it.
func (a *API) serveCleanup(w http.ResponseWriter, r *http.Request) error {
	if _, err := a.adminIdentity(r, rightDestructive); err != nil {
		return err
	}
	c, err := a.store.Cleanup(r.Context())
	if err != nil {
		return err
	}
	a.audit(r.Context(), "cleanup", "partitions", c.Partitions, "reclaimed", c.ReclaimedBytes)
	writeJSON(w, http.StatusOK, CleanupResponse(c))
	return nil
}

// Names of the trailers that prove a streamed backup: an archive without them was
// cut off.
const (
	backupSHA256Trailer  = "X-Luminate-Backup-Sha256"
	backupEntriesTrailer = "X-Luminate-Backup-Entries"
)

// backupWriter sends the headers with the first byte, so that an error before it
// still has its status.
type backupWriter struct {
	w       http.ResponseWriter
	name    string
	started bool
}

func (b *backupWriter) Write(p []byte) (int, error) {
	b.start()
	return b.w.Write(p)
}

func (b *backupWriter) start() {
	if b.started {
		return
	}
	b.started = true
	h := b.w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Disposition", `attachment; filename="`+b.name+`"`)
	h.Set("Trailer", backupSHA256Trailer+", "+backupEntriesTrailer)
	b.w.WriteHeader(http.StatusOK)
}

// serveBackup streams an archive of everything. When it fails midway the
// connection is cut, so that no client takes the part for the whole.
func (a *API) serveBackup(w http.ResponseWriter, r *http.Request) error {
	if err := a.operator(r, rightDestructive); err != nil {
		return err
	}
	// A backup may take longer than any other answer. Not every ResponseWriter can
	// lift its deadline; then the server's own bound stays.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Time{})
	out := &backupWriter{w: w, name: "luminate-" + a.now().UTC().Format("20060102T150405Z") + ".backup"}
	report, err := a.store.Backup(r.Context(), io.Writer(out))
	if err != nil {
		if !out.started {
			return err
		}
		a.log.ErrorContext(r.Context(), "stream a backup", "err", err)
		panic(http.ErrAbortHandler)
	}
	out.start()
	w.Header().Set(backupSHA256Trailer, report.SHA256)
	w.Header().Set(backupEntriesTrailer, formatUint(report.Entries))
	a.metrics.lastBackup.Set(float64(a.now().Unix()))
	a.audit(r.Context(), "backup", "bytes", report.Bytes, "entries", report.Entries)
	return nil
}
