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

// shapeLimits gives remote write and OTLP the tenant's own limits on labels.
func shapeLimits(l *tenancy.Limiter) func(storage.Tenant) remote.ShapeLimits {
	return func(t storage.Tenant) remote.ShapeLimits {
		x := l.LimitsOf(t)
		return remote.ShapeLimits{
			Labels:     cmp.Or(x.MaxLabelsPerSeries, unbounded),
			NameBytes:  cmp.Or(x.MaxLabelNameBytes, unbounded),
			ValueBytes: cmp.Or(x.MaxLabelValueBytes, unbounded),
		}
	}
}

// nativeWriteLimits gives native writes the tenant's own limits over base.
func nativeWriteLimits(l *tenancy.Limiter, base native.WriteLimits) func(storage.Tenant) native.WriteLimits {
	return func(t storage.Tenant) native.WriteLimits {
		x, w := l.LimitsOf(t), base
		w.MaxDimensions = cmp.Or(x.MaxDimensions, unbounded)
		w.MaxNameBytes = cmp.Or(x.MaxMetricNameBytes, unbounded)
		w.MaxKeyBytes = cmp.Or(x.MaxDimensionKeyBytes, unbounded)
		w.MaxValueBytes = cmp.Or(x.MaxDimensionValueBytes, unbounded)
		w.MaxPast = cmp.Or(time.Duration(x.MaxPast), w.MaxPast)
		w.MaxFuture = cmp.Or(time.Duration(x.MaxFuture), w.MaxFuture)
		if x.MaxDecodedBytes > 0 {
			w.MaxBodyBytes = min(w.MaxBodyBytes, x.MaxDecodedBytes)
		}
		return w
	}
}

// nativeQueryLimits gives native queries the tenant's own limits over base.
func nativeQueryLimits(l *tenancy.Limiter, base native.QueryLimits) func(storage.Tenant) native.QueryLimits {
	return func(t storage.Tenant) native.QueryLimits {
		x, q := l.LimitsOf(t), base
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
}
