package target

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestPaceConverges on the size whose batches last as long as they should,
// whatever a row and a batch cost, with clocks that are out by a tenth.
func TestPaceConverges(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := pace{most: rapid.IntRange(1, 1_000_000).Draw(t, "most"), target: time.Duration(rapid.IntRange(50, 5000).Draw(t, "target")) * time.Millisecond}
		row := time.Duration(rapid.IntRange(200, 50_000_000).Draw(t, "row"))
		batch := time.Duration(rapid.IntRange(0, int(p.target)/2).Draw(t, "batch"))
		for range 60 {
			noise := rapid.IntRange(90, 110).Draw(t, "noise")
			rows := p.next()
			p.took(rows, (batch+time.Duration(rows)*row)*time.Duration(noise)/100)
		}
		got := p.next()
		want := min(max(int((p.target-batch)/row), leastBatch), p.most)
		if got < want*7/10-1 || got > want*12/10+1 {
			t.Errorf("settled on %d rows a batch, want about %d of at most %d", got, want, p.most)
		}
	})
}

// TestPaceBounds holds them whatever it is told, and grows by twofold at most.
func TestPaceBounds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := pace{most: rapid.IntRange(1, 100_000).Draw(t, "most"), target: time.Duration(rapid.Int64Range(0, int64(time.Minute)).Draw(t, "target"))}
		if first := p.next(); first != min(firstBatch, p.most) {
			t.Fatalf("the first batch has %d rows of at most %d", first, p.most)
		}
		for range 30 {
			before := p.next()
			if rapid.Bool().Draw(t, "lost") {
				p.lost()
				if after := p.next(); after > before || after > leastBatch && after != before/2 {
					t.Fatalf("%d rows follow a lost batch of %d", after, before)
				}
				continue
			}
			rows := rapid.IntRange(0, before).Draw(t, "rows")
			took := time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "took"))
			p.took(rows, took)
			after := p.next()
			if after < min(leastBatch, p.most) || after > p.most || after > 2*max(before, leastBatch/2) {
				t.Fatalf("%d rows follow %d, of at most %d", after, before, p.most)
			}
			if p.target == 0 && after != before {
				t.Fatalf("%d rows follow %d without a target", after, before)
			}
		}
	})
}

// TestPaceShrinksAtOnce and in proportion, and grows back step by step; a last,
// short batch says nothing.
func TestPaceShrinksAtOnce(t *testing.T) {
	t.Parallel()
	p := pace{most: 10_000, target: time.Second}
	for _, step := range []struct {
		rows, want int
		row        time.Duration
	}{
		{1000, 2000, 10 * time.Microsecond},
		{2000, 4000, 10 * time.Microsecond},
		{4000, 400, 2500 * time.Microsecond}, // ten times as long as it should
		{7, 400, 10 * time.Millisecond},
		{400, 796, 10 * time.Microsecond},
		{796, 1581, 10 * time.Microsecond},
		{1581, 3112, 10 * time.Microsecond},
		{3112, 6037, 10 * time.Microsecond},
		{6037, 10_000, 10 * time.Microsecond},
		{10_000, 8333, 120 * time.Microsecond},
	} {
		if p.next() != step.rows && step.rows != 7 {
			t.Fatalf("a batch of %d rows, want %d", p.next(), step.rows)
		}
		if p.took(step.rows, time.Duration(step.rows)*step.row); p.next() != step.want {
			t.Errorf("%d rows at %v each are followed by %d, want %d", step.rows, step.row, p.next(), step.want)
		}
	}
}
