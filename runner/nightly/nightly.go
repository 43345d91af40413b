package nightly

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/gofrs/flock"

	"github.com/repromill/repromill/results/atomicfile"
)

// Run is one run of a slot, as it went.
type Run struct {
	ID       string  `json:"run_id"`
	Role     string  `json:"role"` // candidate or canary
	Repeat   int     `json:"repeat"`
	GPUHours float64 `json:"gpu_hours,omitzero"`
	USD      float64 `json:"usd,omitzero"`
	Failed   string  `json:"failed,omitzero"` // why it gave no result
}

// Night is what became of a slot.
type Night struct {
	Series   string    `json:"series"`
	Slot     time.Time `json:"slot"`
	Starts   int       `json:"starts"` // how often it was begun: more than once after a crash
	Began    time.Time `json:"began,omitzero"`
	Finished time.Time `json:"finished,omitzero"`
	Skipped  string    `json:"skipped,omitzero"` // why it was not run
	Told     bool      `json:"told,omitzero"`    // its alarms are known to whoever is told of them
	Runs     []Run     `json:"runs,omitempty"`
}

// over reports that nothing more happens in the slot.
func (n Night) over() bool { return !n.Finished.IsZero() || n.Skipped != "" }

// state is the file of a schedule.
type state struct {
	Version int              `json:"version"`
	Nights  map[string]Night `json:"nights"`
}

// Launcher makes a run and drives it to its end. A key that was used before is
// the same run, taken up where it stands.
type Launcher interface {
	Launch(ctx context.Context, key string, args []string, left Budget) (Run, error)
}

// Config of a [Nightly].
type Config struct {
	Schedule *Schedule
	Dir      string // of the state
	Launcher Launcher
	Now      func() time.Time
	Sleep    func(context.Context, time.Duration) error
	Hook     func(point string)
	Log      func(format string, args ...any)
}

// Nightly works a schedule.
type Nightly struct {
	cfg      Config
	state    state
	recorded map[int64]bool // slots whose verdicts are committed
}

// starts is how often a slot is begun at most: a run that brings down whoever
// drives it is not begun for ever.
const starts = 3

// Open reads the state of a schedule.
func Open(c Config) (*Nightly, error) {
	n := &Nightly{cfg: c}
	b, err := os.ReadFile(n.path())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		n.state = state{Version: 1}
	case err != nil:
		return nil, fmt.Errorf("read nightly state: %w", err)
	default:
		if err := json.Unmarshal(b, &n.state); err != nil || n.state.Version != 1 {
			return nil, userErrorf("restore the file, or remove it to begin a new history", "the state %s cannot be read: version %d, %v", n.path(), n.state.Version, err)
		}
	}
	if n.state.Nights == nil {
		n.state.Nights = map[string]Night{}
	}
	return n, nil
}

func (n *Nightly) path() string { return filepath.Join(n.cfg.Dir, n.cfg.Schedule.Name+".json") }

// Lock makes this process the only one that works the schedule, until release is
// called or the process ends.
func (n *Nightly) Lock() (release func() error, err error) {
	if err := os.MkdirAll(n.cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("lock schedule: %w", err)
	}
	l := flock.New(filepath.Join(n.cfg.Dir, n.cfg.Schedule.Name+".lock"))
	ok, err := l.TryLock()
	if err != nil {
		return nil, fmt.Errorf("lock schedule: %w", err)
	}
	if !ok {
		return nil, userErrorf("stop the other one, or give this schedule another name", "another process works the schedule %s", n.cfg.Schedule.Name)
	}
	// What another process wrote before it gave the lock back.
	fresh, err := Open(n.cfg)
	if err != nil {
		return nil, errors.Join(err, l.Unlock())
	}
	n.state = fresh.state
	return l.Unlock, nil
}

func (n *Nightly) save(what string) error {
	b, err := json.MarshalIndent(n.state, "", " ")
	if err != nil {
		return fmt.Errorf("encode nightly state: %w", err)
	}
	return atomicfile.Write(n.path(), append(b, '\n'), atomicfile.Options{Temp: n.path() + ".tmp", Hook: n.cfg.Hook, Point: "nightly:" + what})
}

// Nights returns what became of the slots of a series, in order.
func (n *Nightly) Nights(series string) []Night {
	var out []Night
	for _, v := range n.state.Nights {
		if v.Series == series {
			out = append(out, v)
		}
	}
	slices.SortFunc(out, func(a, b Night) int { return a.Slot.Compare(b.Slot) })
	return out
}

// acceptedPath is a file of its own, so that a person can accept while another
// process works the schedule.
func (n *Nightly) acceptedPath() string {
	return filepath.Join(n.cfg.Dir, n.cfg.Schedule.Name+".accepted.json")
}

// Accepted returns the slots of every series whose level was declared normal.
func (n *Nightly) Accepted() (map[string][]time.Time, error) {
	out := map[string][]time.Time{}
	b, err := os.ReadFile(n.acceptedPath())
	if errors.Is(err, fs.ErrNotExist) {
		return out, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &out)
	}
	if err != nil {
		return nil, fmt.Errorf("read what was accepted: %w", err)
	}
	return out, nil
}

// Accept declares the level of a series in a slot the new normal one.
func (n *Nightly) Accept(series string, slot time.Time) error {
	if n.cfg.Schedule.Find(series) == nil {
		return userErrorf(fmt.Sprintf("series are %v", n.names()), "there is no series %q", series)
	}
	all, err := n.Accepted()
	if err != nil {
		return err
	}
	all[series] = append(all[series], slot.UTC())
	b, err := json.MarshalIndent(all, "", " ")
	if err != nil {
		return fmt.Errorf("encode what was accepted: %w", err)
	}
	if err := os.MkdirAll(n.cfg.Dir, 0o700); err != nil {
		return fmt.Errorf("write what was accepted: %w", err)
	}
	return atomicfile.Write(n.acceptedPath(), append(b, '\n'), atomicfile.Options{Hook: n.cfg.Hook, Point: "nightly:accept"})
}

func (n *Nightly) names() (out []string) {
	for _, e := range n.cfg.Schedule.Series {
		out = append(out, e.Name)
	}
	return out
}

// Due returns the slots that have to run now, oldest first: of every series the
// one that began last, unless it is over, was missed before the series was first
// seen, or is older than may be caught up.
func (n *Nightly) Due() []Slot {
	now := n.cfg.Now()
	s := n.cfg.Schedule
	var out []Slot
	for i := range s.Series {
		e := &s.Series[i]
		// A slot whose jitter is not over yet is not the last that began.
		list := s.Between(e, now.Add(-max(time.Duration(s.CatchUp), 2*time.Minute)-time.Duration(s.Jitter)), now, 2)
		slices.Reverse(list)
		for _, slot := range list {
			if slot.Start.After(now) {
				continue
			}
			if v, ok := n.state.Nights[slot.id()]; !ok || !v.over() {
				out = append(out, slot)
			}
			break
		}
	}
	slices.SortFunc(out, func(a, b Slot) int { return a.Start.Compare(b.Start) })
	return out
}

// Next returns when the next slot of any series begins; zero if never.
func (n *Nightly) Next() time.Time {
	var first time.Time
	for i := range n.cfg.Schedule.Series {
		if t := n.cfg.Schedule.Next(&n.cfg.Schedule.Series[i], n.cfg.Now()).Start; !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	return first
}

// Once runs what is due, one slot after the other, and returns the slots that
// were run.
func (n *Nightly) Once(ctx context.Context) ([]Slot, error) {
	var ran []Slot
	for {
		due := n.Due()
		if len(due) == 0 {
			return ran, nil
		}
		if err := n.run(ctx, due[0]); err != nil {
			return ran, err
		}
		ran = append(ran, due[0])
	}
}

// longest is the longest sleep, so that a clock that was set, or a laptop that
// slept, is noticed.
const longest = time.Minute

// Loop runs what is due until ctx ends. after is called when slots were run, and
// again while there is something that was not told.
func (n *Nightly) Loop(ctx context.Context, after func([]Slot) error) error {
	for {
		ran, err := n.Once(ctx)
		if err != nil {
			return err
		}
		if len(ran) > 0 || len(n.Untold()) > 0 {
			if err := after(ran); err != nil {
				n.cfg.Log("report: %v", err)
			}
		}
		wait := longest
		if next := n.Next(); !next.IsZero() {
			wait = max(time.Second, min(wait, next.Sub(n.cfg.Now())))
		}
		if err := n.cfg.Sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// run works one slot: its canary and its candidate by turns. That it began is
// written first, so that a slot that brings this program down is known.
func (n *Nightly) run(ctx context.Context, slot Slot) error {
	id := slot.id()
	v := n.state.Nights[id]
	v.Series, v.Slot = slot.Entry.Name, slot.At.UTC()
	left, why := n.left(slot)
	switch {
	case v.Starts >= starts:
		v.Skipped = fmt.Sprintf("it was begun %d times and never came to an end", v.Starts)
	case v.Starts == 0 && why != "":
		v.Skipped = why
	}
	if v.Skipped != "" {
		n.state.Nights[id] = v
		n.cfg.Log("%s: skipped: %s", id, v.Skipped)
		return n.save("skip")
	}
	v.Starts++
	if v.Began.IsZero() {
		v.Began = n.cfg.Now().UTC()
	}
	n.state.Nights[id] = v
	if err := n.save("begin"); err != nil {
		return err
	}
	release, err := n.work(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = release() }()
	n.cfg.Log("%s: begins", id)
	v.Runs = nil
	for r := range slot.Entry.repeats() {
		for _, role := range []struct {
			name string
			args []string
		}{{"canary", slot.Entry.Canary}, {"candidate", slot.Entry.Run}} {
			if len(role.args) == 0 {
				continue
			}
			if why := n.spent(left); why != "" {
				v.Runs = append(v.Runs, Run{Role: role.name, Repeat: r, Failed: why})
				continue
			}
			run, err := n.cfg.Launcher.Launch(ctx, n.cfg.Schedule.Key(slot, role.name, r), role.args, left)
			if ctx.Err() != nil {
				return ctx.Err() // it is taken up by the next start
			}
			if err != nil {
				run.Failed = err.Error()
			}
			run.Role, run.Repeat = role.name, r
			left = n.less(left, run)
			v.Runs = append(v.Runs, run)
			n.cfg.Log("%s: %s %d: run %s%s", id, role.name, r+1, run.ID, because(run.Failed))
		}
	}
	v.Finished = n.cfg.Now().UTC()
	n.state.Nights[id] = v
	return n.save("finish")
}

func because(why string) string {
	if why == "" {
		return ""
	}
	return " failed: " + why
}

// left is what the budget of the slot's night still allows; a bound that is not
// set stays zero. A night is the slots within half a day before this one.
func (n *Nightly) left(slot Slot) (Budget, string) {
	left := n.cfg.Schedule.Budget
	for _, v := range n.state.Nights {
		if d := slot.At.Sub(v.Slot); d < 0 || d >= 12*time.Hour {
			continue
		}
		for _, r := range v.Runs {
			left = n.less(left, r)
		}
	}
	return left, n.spent(left)
}

func (n *Nightly) less(left Budget, r Run) Budget {
	if n.cfg.Schedule.Budget.GPUHours > 0 {
		left.GPUHours -= r.GPUHours
	}
	if n.cfg.Schedule.Budget.USD > 0 {
		left.USD -= r.USD
	}
	return left
}

// spent says which bound is used up; empty while none is.
func (n *Nightly) spent(left Budget) string {
	switch b := n.cfg.Schedule.Budget; {
	case b.GPUHours > 0 && left.GPUHours <= 0:
		return fmt.Sprintf("the night's budget of %g GPU-hours is used", b.GPUHours)
	case b.USD > 0 && left.USD <= 0:
		return fmt.Sprintf("the night's budget of %g USD is used", b.USD)
	}
	return ""
}
