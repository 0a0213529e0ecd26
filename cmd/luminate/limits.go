package main

import (
	"cmp"
	"math"
	"time"

	"github.com/luminate/luminate/native"
	"github.com/luminate/luminate/remote"
	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/tenancy"
)

// unbounded stands in the APIs' configurations, in which zero means zero, for a
// tenant's limit of 0, which is no bound.
const unbounded = math.MaxInt32

// shapeOf returns the tenant's limits on the shape of writes. Where limits are only
// observed those of the APIs hold, and the tenant's own are counted around the store.
func shapeOf(l *tenancy.Limiter, t storage.Tenant) tenancy.Limits {
	if l.Observes() {
		return tenancy.UnlimitedLimits()
	}
	return l.LimitsOf(t)
}

// shapeLimits gives remote write and OTLP the tenant's own limits on labels and size.
func shapeLimits(l *tenancy.Limiter) func(storage.Tenant) remote.ShapeLimits {
	return func(t storage.Tenant) remote.ShapeLimits {
		x := shapeOf(l, t)
		return remote.ShapeLimits{
			Labels:       cmp.Or(x.MaxLabelsPerSeries, unbounded),
			NameBytes:    cmp.Or(x.MaxLabelNameBytes, unbounded),
			ValueBytes:   cmp.Or(x.MaxLabelValueBytes, unbounded),
			DecodedBytes: x.MaxDecodedBytes,
		}
	}
}

// nativeWriteLimits gives native writes the tenant's own limits over base.
func nativeWriteLimits(l *tenancy.Limiter, base native.WriteLimits) func(storage.Tenant) native.WriteLimits {
	return func(t storage.Tenant) native.WriteLimits { return shaped(shapeOf(l, t), base) }
}

// watchedWriteLimits gives the limits of native writes that are only observed, nil if they
// are enforced.
func watchedWriteLimits(l *tenancy.Limiter, base native.WriteLimits) func(storage.Tenant) native.WriteLimits {
	if !l.Observes() {
		return nil
	}
	return func(t storage.Tenant) native.WriteLimits { return shaped(l.LimitsOf(t), base) }
}

func shaped(x tenancy.Limits, w native.WriteLimits) native.WriteLimits {
	w.MaxDimensions = cmp.Or(x.MaxDimensions, unbounded)
	w.MaxNameBytes = cmp.Or(x.MaxMetricNameBytes, unbounded)
	w.MaxKeyBytes = cmp.Or(x.MaxDimensionKeyBytes, unbounded)
	w.MaxValueBytes = cmp.Or(x.MaxDimensionValueBytes, unbounded)
	w.MaxPast = cmp.Or(time.Duration(x.MaxPast), w.MaxPast)
	w.MaxFuture = cmp.Or(time.Duration(x.MaxFuture), w.MaxFuture)
	w.MaxDecodedBytes = x.MaxDecodedBytes
	return w
}

// nativeQueryLimits gives native queries the tenant's own limits over base.
func nativeQueryLimits(l *tenancy.Limiter, base native.QueryLimits) func(storage.Tenant) native.QueryLimits {
	return func(t storage.Tenant) native.QueryLimits { return tightened(shapeOf(l, t), base) }
}

// watchedQueryLimits gives the limits of native queries that are only observed, nil if
// they are enforced.
func watchedQueryLimits(l *tenancy.Limiter, base native.QueryLimits) func(storage.Tenant) native.QueryLimits {
	if !l.Observes() {
		return nil
	}
	return func(t storage.Tenant) native.QueryLimits { return tightened(l.LimitsOf(t), base) }
}

func tightened(x tenancy.Limits, q native.QueryLimits) native.QueryLimits {
	q.MaxPoints = cmp.Or(x.MaxPointsPerQuery, unbounded)
	if x.MaxQueryTime > 0 {
		q.MaxTimeout = min(q.MaxTimeout, time.Duration(x.MaxQueryTime))
		q.DefaultTimeout = min(q.DefaultTimeout, q.MaxTimeout)
	}
	if x.MaxQueryRange > 0 {
		q.MaxRange = min(q.MaxRange, time.Duration(x.MaxQueryRange))
	}
	return q
}
