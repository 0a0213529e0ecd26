// Package lookup keeps answers of discovery (label names, label values, series) for
// the backends, bounded in bytes. It knows nothing of tenants or of what makes an
// answer old: a backend's keys name the tenant, the selection and a generation that
// the backend changes with every change that an answer could show, so an answer of
// an older generation is not found any more and ages out.
package lookup
