package cli

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
)

// ui shows long work on standard error: a bar on a terminal, plain lines when
// piped, nothing with --quiet or --json.
type ui struct {
	mu    sync.Mutex
	w     io.Writer
	tty   bool
	off   bool
	now   func() time.Time
	bar   *progressbar.ProgressBar
	what  string
	since time.Time
	last  time.Time     // of the last plain progress line
	tick  chan struct{} // closed when the bar goes
}

func (a *app) ui() *ui {
	_, tty := isTerminal(a.stderr)
	u := &ui{w: a.stderr, tty: tty && a.env["TERM"] != "dumb", off: a.quiet || a.jsonOut, now: a.now}
	a.shown.Store(u)
	return u
}

// fetching shows what the way to the outside is doing, on whatever is shown.
func (a *app) fetching(done, total int64, unit, message string) {
	if u := a.shown.Load(); u != nil {
		u.progress(done, total, unit, message)
	}
}

// start begins a piece of work.
func (u *ui) start(what string) { u.startAt(u.now(), what) }

// startAt is start for work that began at a time that may be long past.
func (u *ui) startAt(begin time.Time, what string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.clear()
	u.what, u.since, u.last = what, begin, u.now()
	if u.tty && !u.off {
		u.spin(-1, false)
	}
}

// spin puts a bar, or a spinner for an unknown total, on the terminal and keeps
// it moving.
func (u *ui) spin(total int64, bytes bool) {
	u.bar = progressbar.NewOptions64(total,
		progressbar.OptionSetWriter(u.w), progressbar.OptionSetWidth(24), progressbar.OptionClearOnFinish(),
		progressbar.OptionShowBytes(bytes), progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionSetDescription(u.what), progressbar.OptionSpinnerType(14))
	u.tick = make(chan struct{})
	go func(bar *progressbar.ProgressBar, stop chan struct{}) {
		t := time.NewTicker(200 * time.Millisecond)
		defer t.Stop()
		for {
			select {
			case <-stop:
				return
			case <-t.C:
				u.mu.Lock()
				if u.bar == bar {
					_ = bar.Add(0)
				}
				u.mu.Unlock()
			}
		}
	}(u.bar, u.tick)
}

// progress shows how far the work is: done of total, where total is not known
// if it is 0. unit is "B" for bytes, "s" for seconds, or what is counted.
func (u *ui) progress(done, total int64, unit, message string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.off || u.what == "" {
		return
	}
	if !u.tty {
		if u.now().Sub(u.last) >= 10*time.Second {
			u.last = u.now()
			fmt.Fprintf(u.w, "  %s: %s\n", u.what, amount(done, total, unit, message))
		}
		return
	}
	if total <= 0 {
		total = -1
	}
	if u.bar == nil || u.bar.GetMax64() != total {
		u.clear()
		u.spin(total, unit == "B")
	}
	u.bar.Describe(u.what + " " + clean(oneLine(message)))
	_ = u.bar.Set64(done)
}

func amount(done, total int64, unit, message string) string {
	if unit == "" {
		return clean(oneLine(message))
	}
	text := fmt.Sprintf("%d %s", done, unit)
	if unit == "B" {
		text = fmt.Sprintf("%.1f MB", float64(done)/1e6)
	}
	if total > 0 {
		text += fmt.Sprintf(" (%d %%)", 100*done/total)
	}
	if message != "" {
		text += " " + clean(oneLine(message))
	}
	return text
}

// finish ends the present piece of work with one line.
func (u *ui) finish(result string) { u.finishAt(u.now(), result) }

// finishAt is finish for work that ended at a time that may be long past.
func (u *ui) finishAt(end time.Time, result string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.what == "" {
		return
	}
	u.clear()
	if !u.off {
		fmt.Fprintf(u.w, "%-9s %5.1fs  %s\n", u.what, max(0, end.Sub(u.since).Seconds()), clean(oneLine(result)))
	}
	u.what = ""
}

// abandon forgets the present piece of work; what went wrong is said elsewhere.
func (u *ui) abandon() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.clear()
	u.what = ""
}

// note prints one line above the bar.
func (u *ui) note(text string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.clear()
	if !u.off {
		fmt.Fprintf(u.w, "%s\n", clean(oneLine(text)))
	}
}

func (u *ui) clear() {
	if u.bar != nil {
		close(u.tick)
		_ = u.bar.Clear()
		u.bar = nil
	}
}
