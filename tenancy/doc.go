// Package tenancy stands before every handler and around the store: who asks
// (Verifier), which tenant is meant and what the caller may do (Gate), what it may
// see (matchers of a scoped token, in the store that Wrap returns), and how much
// (Limiter).
//
// Handlers take the tenant from the request's context with TenantOf and pass it to
// the store explicitly. With authentication on, the wrapped store refuses a call
// whose context carries no identity, or one of another tenant: a handler that
// forgets the context fails closed.
//
//	request ─► Gate ─► handler ─► wrapped store ─► backend
//	             │                     │
//	          Verifier              Limiter
//	   (keys, revoked tokens)   (limits file, use)
//
// Invariants:
//   - A request never does I/O for a key: key sets are fetched in the background
//     and looked up in memory.
//   - A header chooses among the tenants of the token; it never adds one.
//   - Every route stands in the one table of routes.go; Check refuses a router that
//     has another.
//   - Limits that meet a tenant's own doing answer KindLimited (429) or KindTooLarge;
//     those that protect the process answer KindUnavailable (503).
package tenancy
