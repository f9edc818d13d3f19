package deployment_test

import (
	"slices"
	"testing"
	"time"
)

// BenchmarkColdStart measures what a message waits for when no instance runs: from
// the start of the process until its first tick is answered, emulators and database
// being on this machine. listen_ms is the part until it listens.
func BenchmarkColdStart(b *testing.B) {
	ticks := map[string]string{"Extract": `{"cadence":"1m"}`, "Dedup": `{"cadence":"90m"}`, "ReverseETL": `{"cadence":"15m"}`}
	all := functions(b)
	c := newCloud(b)
	extract := all[slices.IndexFunc(all, func(f deployed) bool { return f.entryPoint == "Extract" })]
	first := launch(b, build(b, extract.archive).Binary, "Extract", c.environment...).ready()
	if status := first.push(extract.topic, ticks["Extract"]); status/100 != 2 {
		b.Fatalf("Extract answered %d:\n%s", status, first.log)
	}
	for _, f := range all {
		binary := build(b, f.archive).Binary
		b.Run(f.name, func(b *testing.B) {
			var listening, answered time.Duration
			for b.Loop() {
				start := time.Now()
				s := launch(b, binary, f.entryPoint, c.environment...).ready()
				listening += time.Since(start)
				if status := s.push(f.topic, ticks[f.entryPoint]); status/100 != 2 {
					b.Fatalf("it answered %d:\n%s", status, s.log)
				}
				answered += time.Since(start)
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(listening.Milliseconds())/float64(b.N), "listen_ms")
			b.ReportMetric(float64(answered.Milliseconds())/float64(b.N), "tick_ms")
		})
	}
}
