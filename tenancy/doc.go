// Package tenancy stands before every handler and around the store: who asks
// (Identity), which tenant is meant, what the caller may do (scopes), what it may
// see (matchers of a scoped token), and how much (limits).
//
// Handlers take the tenant from the request's context with TenantOf and pass it to
// the store explicitly.
package tenancy
