package native

import (
	"github.com/luminate/luminate/storage"
)

// watchWrite tells OnLimited which series of a write the tenant's own limits would have
// refused, where these are only observed. Each counts for itself, as each would have been
// refused.
func (a *API) watchWrite(t storage.Tenant, x *writer) {
	if a.cfg.WatchedWriteOf == nil || a.cfg.OnLimited == nil {
		return
	}
	lim := a.cfg.WatchedWriteOf(t)
	over := func(is bool, id, setting string, most int) {
		if is {
			a.cfg.OnLimited(t, storage.LimitErrorf(storage.KindTooLarge, "native", id, setting, "a metric is over the limit of %d", most))
		}
	}
	for i := range x.batch.Series {
		dimensions, name, key, value := 0, false, false, false
		for n, v := range x.batch.At(i).Labels.All() {
			if n == "__name__" {
				name = len(v) > lim.MaxNameBytes
				continue
			}
			if n == InstanceDimension && x.source == v {
				continue // the source does not count
			}
			dimensions++
			key, value = key || len(n) > lim.MaxKeyBytes, value || len(v) > lim.MaxValueBytes
		}
		over(dimensions > lim.MaxDimensions, "max-dimensions", "limits.maxDimensions", lim.MaxDimensions)
		over(name, "max-metric-name-bytes", "limits.maxMetricNameBytes", lim.MaxNameBytes)
		over(key, "max-dimension-key-bytes", "limits.maxDimensionKeyBytes", lim.MaxKeyBytes)
		over(value, "max-dimension-value-bytes", "limits.maxDimensionValueBytes", lim.MaxValueBytes)
	}
}
