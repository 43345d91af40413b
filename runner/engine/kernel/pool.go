package kernel

import (
	"sync"
	"sync/atomic"
)

// Pool runs parts of a computation on several threads. Its methods may not be
// called from several goroutines at once.
type Pool struct {
	scratch []Scratch
	wake    []chan func(worker int)
	done    sync.WaitGroup
}

// NewPool returns a pool of so many threads, the caller's own among them. Close
// ends the others.
func NewPool(threads int) *Pool {
	threads = max(1, threads)
	p := &Pool{scratch: make([]Scratch, threads)}
	for w := 1; w < threads; w++ {
		c := make(chan func(int), 1)
		p.wake = append(p.wake, c)
		go func() {
			for f := range c {
				f(w)
				p.done.Done()
			}
		}()
	}
	return p
}

// Close ends the threads of a pool.
func (p *Pool) Close() {
	for _, c := range p.wake {
		close(c)
	}
}

// Threads is the number of threads.
func (p *Pool) Threads() int { return len(p.scratch) }

// Each calls f for every i below n, each with the number of the thread that it
// runs on, and returns when all have returned.
func (p *Pool) Each(n int, f func(worker, i int)) {
	if n <= 1 || len(p.wake) == 0 {
		for i := range n {
			f(0, i)
		}
		return
	}
	var next atomic.Int64
	loop := func(worker int) {
		for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
			f(worker, i)
		}
	}
	others := p.wake[:min(len(p.wake), n-1)]
	p.done.Add(len(others))
	for _, c := range others {
		c <- loop
	}
	loop(0)
	p.done.Wait()
}

// Worth is the number of multiplications below which waking another thread costs
// more than it saves: some ten microseconds.
const Worth = 1 << 18

// part is some rows of a product.
type part struct {
	p           *Product
	first, last int
}

// Multiply computes products. They may share their inputs, not their outputs.
func (p *Pool) Multiply(products ...Product) {
	work, bytes := 0, int64(0)
	for i := range products {
		q := &products[i]
		work += len(q.X) * q.Matrix.Rows
		bytes += q.Matrix.Bytes()
	}
	if len(p.wake) == 0 || work < Worth && bytes < Worth {
		for i := range products {
			p.scratch[0].Rows(&products[i], 0, products[i].Matrix.Rows)
		}
		return
	}
	// Several parts for each thread, so that one that is held up by others on the
	// machine does not hold up all.
	parts := make([]part, 0, 64)
	rows := 0
	for i := range products {
		rows += products[i].Matrix.Rows
	}
	step := max(largeTile, (rows/(8*len(p.scratch))+largeTile-1)&^(largeTile-1))
	for i := range products {
		q := &products[i]
		for first := 0; first < q.Matrix.Rows; first += step {
			parts = append(parts, part{q, first, min(first+step, q.Matrix.Rows)})
		}
	}
	p.Each(len(parts), func(worker, i int) { p.scratch[worker].Rows(parts[i].p, parts[i].first, parts[i].last) })
}
