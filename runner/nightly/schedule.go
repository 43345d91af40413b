// Package nightly runs a schedule of plans and suites, each slot at most once,
// and reads back what the nights gave.
package nightly

import (
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"regexp"
	"slices"
	"time"

	"github.com/robfig/cron/v3"
	"go.yaml.in/yaml/v3"

	"github.com/repromill/repromill/results/regress"
)

// Schedule is what a site runs every night, as its YAML file says.
type Schedule struct {
	Version int    `yaml:"version"`
	Name    string `yaml:"name"`    // part of every run's idempotency key: another name is another history
	Zone    string `yaml:"zone"`    // IANA time zone of all expressions; UTC if empty
	Jitter  Span   `yaml:"jitter"`  // each slot begins up to this much later, always the same for the slot
	CatchUp Span   `yaml:"catchup"` // how old the last missed slot may be and still be run
	// Budget is of one night over all series; zero fields are no bound.
	Budget  Budget         `yaml:"budget"`
	Policy  regress.Policy `yaml:"policy"`
	Webhook Webhook        `yaml:"webhook"`
	Series  []Entry        `yaml:"series"`

	zone *time.Location
}

// Budget bounds what may be spent.
type Budget struct {
	GPUHours float64 `yaml:"gpu_hours" json:"gpu_hours"`
	USD      float64 `yaml:"usd" json:"usd"`
}

// Webhook is told of alarms, and of nothing else.
type Webhook struct {
	// URLEnv names the environment variable that holds the address, which is a
	// secret with most services.
	URLEnv string `yaml:"url_env"`
	Format string `yaml:"format"` // json or slack
}

// Entry is one candidate that runs in every slot of its expression.
type Entry struct {
	Name string `yaml:"name"`
	At   string `yaml:"at"` // cron expression with five fields, or @daily and the like
	// Run and Canary are the arguments of `repromill run`. The canary is a pinned
	// configuration that runs beside the candidate, so that drift of the machine is
	// told from a change.
	Run     []string `yaml:"run"`
	Canary  []string `yaml:"canary"`
	Repeats int      `yaml:"repeats"` // runs a night; 1 if zero

	cron cron.Schedule
}

// Span is a duration such as 90m in YAML.
type Span time.Duration

// UnmarshalYAML implements [yaml.Unmarshaler].
func (s *Span) UnmarshalYAML(n *yaml.Node) error {
	d, err := time.ParseDuration(n.Value)
	if err != nil || d < 0 {
		return fmt.Errorf("line %d: %q is not a duration such as 90m or 24h", n.Line, n.Value)
	}
	*s = Span(d)
	return nil
}

// UserError is a mistake in a schedule, with the fix.
type UserError struct{ Msg, Fix string }

func (e *UserError) Error() string { return e.Msg }

// UserError returns the fix.
func (e *UserError) UserError() string { return e.Fix }

func userErrorf(fix, format string, args ...any) error {
	return &UserError{fmt.Sprintf(format, args...), fix}
}

const maxSchedule = 1 << 20

var (
	nameRE = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)
	zoneRE = regexp.MustCompile(`^(CRON_)?TZ=`)
)

// flagsOfOurs are options that the schedule itself decides.
var flagsOfOurs = []string{"--yes", "-y", "--key", "--json", "--resume", "--from", "--fail-on"}

// Parse reads a schedule. Unknown fields are refused: a misspelt budget is none.
func Parse(r io.Reader) (*Schedule, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxSchedule+1))
	if err != nil {
		return nil, fmt.Errorf("read schedule: %w", err)
	}
	if len(b) > maxSchedule {
		return nil, userErrorf("split it over several schedules", "the schedule is larger than %d bytes", maxSchedule)
	}
	const example = "see `repromill nightly --help` for an example"
	s := &Schedule{}
	dec := yaml.NewDecoder(bytes.NewReader(b))
	dec.KnownFields(true)
	if err := dec.Decode(s); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, userErrorf(example, "the schedule is empty")
		}
		return nil, userErrorf(example, "the schedule cannot be read: %v", err)
	}
	if err := dec.Decode(new(any)); !errors.Is(err, io.EOF) {
		return nil, userErrorf("keep one document in a file", "the schedule holds more than one document")
	}
	return s, s.check()
}

func (s *Schedule) check() (err error) {
	if s.Version != 1 {
		return userErrorf("write version: 1", "the schedule has version %d, and this program reads 1", s.Version)
	}
	if !nameRE.MatchString(s.Name) {
		return userErrorf("use small letters, digits, dots and dashes, such as name: main", "the schedule's name %q cannot be one", s.Name)
	}
	if s.zone, err = time.LoadLocation(s.Zone); err != nil {
		return userErrorf("use a name of the IANA data base such as Europe/Berlin", "there is no time zone %q", s.Zone)
	}
	if s.Jitter > Span(time.Hour) {
		return userErrorf("use at most 1h", "a jitter of %s moves slots into one another", time.Duration(s.Jitter))
	}
	if s.Budget.GPUHours < 0 || s.Budget.USD < 0 {
		return userErrorf("leave out what is not to be bounded", "a budget cannot be negative")
	}
	if err := s.Policy.Check(); err != nil {
		return userErrorf("leave the policy out for the defaults", "%v", err)
	}
	if f := s.Webhook.Format; f != "" && f != "json" && f != "slack" {
		return userErrorf("use json or slack", "the webhook has no format %q", f)
	}
	if len(s.Series) == 0 {
		return userErrorf("list at least one under series:", "the schedule has no series")
	}
	seen := map[string]bool{}
	for i := range s.Series {
		e := &s.Series[i]
		if !nameRE.MatchString(e.Name) || seen[e.Name] {
			return userErrorf("give every series a name of its own, in small letters, digits, dots and dashes", "series %d has the name %q, which is taken or cannot be one", i+1, e.Name)
		}
		seen[e.Name] = true
		if err := e.check(); err != nil {
			return err
		}
	}
	return nil
}

func (e *Entry) check() (err error) {
	if e.cron, err = cron.ParseStandard(e.At); err != nil {
		return userErrorf(`use five fields such as "30 2 * * *"; the zone stands at the top of the file`, "series %s: %q is no cron expression: %v", e.Name, e.At, err)
	}
	if zoneRE.MatchString(e.At) {
		return userErrorf("write zone: at the top of the file", "series %s: the zone stands in the expression %q", e.Name, e.At)
	}
	if e.Repeats < 0 || e.Repeats > 100 {
		return userErrorf("use 1 to 100", "series %s: %d repeats", e.Name, e.Repeats)
	}
	if len(e.Run) == 0 {
		return userErrorf("write run: [TARGET, --option, …] as for `repromill run`", "series %s runs nothing", e.Name)
	}
	for _, args := range [][]string{e.Run, e.Canary} {
		for _, a := range args {
			if slices.Contains(flagsOfOurs, a) {
				return userErrorf("leave it out: the schedule sees to it", "series %s: %s cannot be set in a schedule", e.Name, a)
			}
		}
	}
	return nil
}

// Slot is one night of one series.
type Slot struct {
	Entry *Entry
	At    time.Time // as the expression has it
	Start time.Time // with the jitter
}

// Key is the idempotency key of a run of the slot.
func (s *Schedule) Key(slot Slot, role string, repeat int) string {
	return fmt.Sprintf("nightly/%s/%s/%s/%s/%d", s.Name, slot.Entry.Name, slot.At.UTC().Format("2006-01-02T15:04Z"), role, repeat)
}

// id names the slot in the state.
func (s Slot) id() string { return s.Entry.Name + "@" + s.At.UTC().Format("2006-01-02T15:04Z") }

// slot adds the jitter, which is a function of series and slot.
func (s *Schedule) slot(e *Entry, at time.Time) Slot {
	start := at
	if s.Jitter > 0 {
		h := fnv.New64a()
		fmt.Fprintf(h, "%s %s %d", s.Name, e.Name, at.Unix())
		start = at.Add(time.Duration(h.Sum64() % uint64(s.Jitter)))
	}
	return Slot{e, at, start}
}

// Between returns the slots of a series after from and up to to, at most limit
// of the latest.
func (s *Schedule) Between(e *Entry, from, to time.Time, limit int) []Slot {
	var out []Slot
	for at := s.next(e, from); !at.IsZero() && !at.After(to); at = s.next(e, at) {
		out = append(out, s.slot(e, at))
		if len(out) > limit {
			out = out[1:]
		}
	}
	return out
}

// Next returns the first slot of a series after a time; its At is zero where the
// expression never comes true.
func (s *Schedule) Next(e *Entry, after time.Time) Slot {
	at := s.next(e, after)
	if at.IsZero() {
		return Slot{Entry: e}
	}
	return s.slot(e, at)
}

// next passes over the second of two moments that the clocks show alike, in the
// night in which they are put back.
func (s *Schedule) next(e *Entry, after time.Time) time.Time {
	at := e.cron.Next(after.In(s.zone))
	for !at.IsZero() {
		before := at.Add(-time.Hour)
		if before.Hour() != at.Hour() || before.Day() != at.Day() {
			return at
		}
		at = e.cron.Next(at)
	}
	return at
}

// Find returns a series by name; nil if there is none.
func (s *Schedule) Find(name string) *Entry {
	for i := range s.Series {
		if s.Series[i].Name == name {
			return &s.Series[i]
		}
	}
	return nil
}

// repeats of an entry.
func (e *Entry) repeats() int { return max(1, e.Repeats) }
