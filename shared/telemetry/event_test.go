package telemetry_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/telemetry"
)

// emitted are the lines that f writes through the default logger of LOG_LEVEL level.
func emitted(t *testing.T, level string, f func()) []map[string]any {
	t.Helper()
	before := slog.Default()
	defer slog.SetDefault(before)
	return lines(t, level, func(l *slog.Logger) {
		slog.SetDefault(l)
		f()
	})
}

// TestEvents are logged with their severity and the context's attributes, whatever
// the level is: an alert on absence counts them.
func TestEvents(t *testing.T) { //nolint:paralleltest // the default logger belongs to the process
	ctx := telemetry.With(t.Context(), slog.String("run", "r"))
	severities := map[telemetry.Event]string{
		telemetry.Failed: "ERROR", telemetry.Done: "INFO", telemetry.Stale: "WARNING", telemetry.Rejected: "WARNING", telemetry.Billed: "INFO", telemetry.Lag: "WARNING",
	}
	for _, level := range []string{"", "debug", "warn", "error"} {
		for _, e := range telemetry.Events() {
			got := emitted(t, level, func() { telemetry.Emit(ctx, e, slog.Int("n", 1)) })
			want := []map[string]any{{"severity": severities[e], "message": string(e), "run": "r", "n": 1.0}}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s at LOG_LEVEL=%s (-want +got):\n%s", e, level, diff)
			}
		}
	}
	if len(severities) != len(telemetry.Events()) {
		t.Errorf("%d events, want %d", len(telemetry.Events()), len(severities))
	}
}

func TestRejectBillAndHoldBack(t *testing.T) { //nolint:paralleltest // as above
	got := emitted(t, "", func() {
		telemetry.Reject(t.Context(), 0)
		telemetry.Reject(t.Context(), 2)
		telemetry.Bill(t.Context(), 0, "job_0")
		telemetry.Bill(t.Context(), 1<<40, "job_1", "job_2")
		telemetry.HoldBack(t.Context(), "tidemark_shop", 5, 5, "reserved")
		telemetry.HoldBack(t.Context(), "tidemark_shop", 6, 5, "extended")
	})
	want := []map[string]any{
		{"severity": "WARNING", "message": "rejected", "rows": 2.0},
		{"severity": "INFO", "message": "billed", "bytes": float64(1 << 40), "job": "job_1 job_2"},
		{"severity": "WARNING", "message": "lag", "slot": "tidemark_shop", "bytes": 6.0, "limit": 5.0, "status": "extended"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}

// TestFailures: each failure is reported once, with the scope nearest to its cause.
func TestFailures(t *testing.T) {
	t.Parallel()
	in := func(attrs ...string) context.Context {
		ctx := t.Context()
		for i := 0; i < len(attrs); i += 2 {
			ctx = telemetry.With(ctx, slog.String(attrs[i], attrs[i+1]))
		}
		return ctx
	}
	a, b, c := errors.New("a"), errors.New("b"), errors.New("c")
	orders, items := in("pipeline", "shop", "table", "orders"), in("pipeline", "shop", "table", "items")
	tests := []struct {
		name string
		err  error
		want []string // pipeline/table: error
	}{
		{"without a scope", a, []string{"/: a"}},
		{"joined without a scope", fmt.Errorf("opening: %w", errors.Join(a, b)), []string{"/: opening: a\nb"}},
		{"joined without a scope, beside one", errors.Join(errors.Join(a, b), telemetry.Scope(orders, c)), []string{"/: a\nb", "shop/orders: c"}},
		{"scoped", telemetry.Scope(orders, a), []string{"shop/orders: a"}},
		{"what one table joined is one failure", telemetry.Scope(orders, errors.Join(a, b)), []string{"shop/orders: a\nb"}},
		{"each its own", errors.Join(telemetry.Scope(orders, a), nil, telemetry.Scope(items, fmt.Errorf("reading: %w", b)), c), []string{"shop/orders: a", "shop/items: reading: b", "/: c"}},
		{"the nearest scope counts", telemetry.Scope(in("pipeline", "shop"), fmt.Errorf("reading: %w", telemetry.Scope(orders, a))), []string{"shop/orders: reading: a"}},
		{"recorded and wrapped", fmt.Errorf("all: %w", fault.Recorded(errors.Join(telemetry.Scope(orders, a), telemetry.Scope(items, b)))), []string{"shop/orders: a", "shop/items: b"}},
		{"scoped in a context without attributes", telemetry.Scope(t.Context(), a), []string{"/: a"}},
		{"an error with a remedy is one", fault.Fix(errors.Join(a, b), "mend it"), []string{"/: a\nb"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for ctx, err := range telemetry.Failures(t.Context(), test.err) {
				lines := lines(t, "", func(l *slog.Logger) { l.InfoContext(ctx, "x", "error", err) })
				line := map[string]any{"pipeline": "", "table": ""}
				for k, v := range lines[0] {
					line[k] = v
				}
				got = append(got, fmt.Sprintf("%s/%s: %s", line["pipeline"], line["table"], line["error"]))
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("Failures (-want +got):\n%s", diff)
			}
		})
	}
	if err := telemetry.Scope(orders, nil); err != nil {
		t.Errorf("the scope of no error is %v", err)
	}
	for range telemetry.Failures(t.Context(), errors.Join(a, b)) {
		break // a caller may stop
	}
}

// TestScopeHidesNothing: what tells errors apart sees through it.
func TestScopeHidesNothing(t *testing.T) {
	t.Parallel()
	cause := errors.New("cause")
	ctx := telemetry.With(t.Context(), slog.String("table", "orders"))
	err := telemetry.Scope(ctx, fault.Recorded(fault.Fix(cause, "mend it")))
	class, remedy := fault.Classify(err)
	if !errors.Is(err, cause) || !fault.IsRecorded(err) || class != fault.Permanent || remedy != "mend it" || err.Error() != "cause" {
		t.Errorf("%v is %v, %q, recorded %t", err, class, remedy, fault.IsRecorded(err))
	}
	if class, _ := fault.Classify(telemetry.Scope(ctx, errors.Join(fault.Fix(cause, ""), cause))); class != fault.Transient {
		t.Errorf("of a permanent and a transient error it makes a %v one", class)
	}
}
