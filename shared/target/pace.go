package target

import "time"

// Bounds of the size of a batch, below the sync's own.
const (
	firstBatch = 1000
	leastBatch = 10
)

// pace sizes batches so that one lasts target: what locks a batch takes, others
// wait for as long. The zero size is that of the first batch.
type pace struct {
	size   int           // rows of the next batch
	most   int           // never more rows than that
	target time.Duration // 0: the size stays as it is

	cost time.Duration // of a row, by the batches so far
}

// next is how many rows the next batch should have: 1 to most.
func (p *pace) next() int {
	if p.size == 0 {
		p.size = firstBatch
	}
	p.size = max(min(p.size, p.most), 1)
	return p.size
}

// took tells what a batch of so many rows lasted, waiting and repeating
// included. A slow batch makes the next one smaller at once, a fast one larger,
// at most twofold, and only half believed.
func (p *pace) took(rows int, d time.Duration) {
	size := p.next()
	short := rows < size && d <= p.target // its share of what every batch costs is too large
	if p.target <= 0 || rows <= 0 || short {
		return
	}
	cost := max(d/time.Duration(rows), 1)
	if p.cost > 0 && cost < p.cost {
		cost = (p.cost + cost + 1) / 2
	}
	p.cost = cost
	p.size = p.within(min(int64(p.target/cost), 2*int64(size)))
}

// lost tells that a batch lost against other writers: a smaller one is in their
// way less.
func (p *pace) lost() { p.size = p.within(int64(p.next()) / 2) }

func (p *pace) within(size int64) int {
	return int(min(max(size, leastBatch), int64(max(p.most, 1))))
}
