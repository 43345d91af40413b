package harness

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"sync"

	"github.com/repromill/repromill/results/atomicfile"
	"github.com/repromill/repromill/suites"
	"github.com/repromill/repromill/suites/journal"
)

// declaration is what is fixed before the first request.
type declaration struct {
	Suite      string          `json:"suite"`
	Variant    string          `json:"variant,omitempty"`
	Rule       string          `json:"rule"`
	DatasetSHA string          `json:"dataset_sha"`
	Seed       uint64          `json:"seed"`
	Questions  int             `json:"questions"`
	Repeats    int             `json:"repeats"`
	Arms       []string        `json:"arms"`
	Sampling   suites.Sampling `json:"sampling"`
	Terms      Terms           `json:"terms"`
	Shard      Shard           `json:"shard"`
}

const declared = "declared.json"

func (c *Config) declare(l *layout) declaration {
	d := declaration{Suite: c.Name, Variant: c.Variant, Rule: c.Suite.Grader().Rule().String(), DatasetSHA: l.sha, Seed: c.Seed,
		Questions: l.total, Repeats: l.repeats, Sampling: c.Sampling, Terms: c.Terms, Shard: c.Shard}
	for _, a := range c.Arms {
		d.Arms = append(d.Arms, a.Name)
	}
	return d
}

func readDeclaration(dir string) (*declaration, error) {
	b, err := os.ReadFile(filepath.Join(dir, declared))
	if err != nil {
		return nil, fmt.Errorf("read declaration: %w", err)
	}
	d := &declaration{}
	if err := json.Unmarshal(b, d); err != nil {
		return nil, fmt.Errorf("read declaration: %w", err)
	}
	return d, nil
}

// same refuses to mix answers to other questions, or under other terms.
func (d declaration) same(was declaration, dir string) error {
	a, b := reflect.ValueOf(was), reflect.ValueOf(d)
	for i := range a.NumField() {
		x, y := encoded(a.Field(i)), encoded(b.Field(i))
		if x != y {
			name := a.Type().Field(i).Tag.Get("json")
			return &UserError{fmt.Sprintf("the answers in %s were declared with %s %s, now it is %s", dir, name, x, y),
				"take the run up with the plan it began with, or begin a new one"}
		}
	}
	return nil
}

// encoded compares values as the file has them.
func encoded(v reflect.Value) string {
	b, err := json.Marshal(v.Interface())
	if err != nil { // the declaration was written as JSON
		return err.Error()
	}
	return string(b)
}

// state is what is durable of a run, open for writing.
type state struct {
	c       *Config
	l       *layout
	journal *journal.Journal
	sent    *os.File
	lookLog *os.File
	looking sync.Mutex
	void    *VoidError // found by this process
	mu      sync.Mutex
	looks   []Look
	seen    map[string]sight // by arm
	asked   []uint8          // requests sent, by unit and arm; stops at 255
	closed  bool
}

// sight is how often a server was looked at, and who it was the last time.
type sight struct {
	checks int
	id     string
}

func (s *state) sight(arm string) sight {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[arm]
}

// cell is the place of an answer in tables by unit and arm.
func (c *Config) cell(unit, arm int) int { return unit*len(c.Arms) + arm }

func (c *Config) arm(name string) int {
	for i, a := range c.Arms {
		if a.Name == name {
			return i
		}
	}
	return -1
}

// open opens the folder of a run, or begins it.
func open(c *Config, l *layout) (_ *state, err error) {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make folder for answers: %w", err)
	}
	d := c.declare(l)
	was, err := readDeclaration(c.Dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		b, err := json.MarshalIndent(d, "", "  ")
		if err != nil {
			return nil, fmt.Errorf("write declaration: %w", err)
		}
		if err := atomicfile.Write(filepath.Join(c.Dir, declared), append(b, '\n'), atomicfile.Options{Perm: 0o600, Temp: filepath.Join(c.Dir, declared+".tmp"), Point: "harness:declare", Hook: c.Hook}); err != nil {
			return nil, fmt.Errorf("write declaration: %w", err)
		}
	case err != nil:
		return nil, err
	default:
		if err := d.same(*was, c.Dir); err != nil {
			return nil, err
		}
	}
	s := &state{c: c, l: l, asked: make([]uint8, l.units()*len(c.Arms)), seen: map[string]sight{}}
	if s.looks, err = readLooks(c.Dir); err != nil {
		return nil, err
	}
	for _, k := range s.looks {
		s.seen[k.Arm] = sight{k.Seq + 1, k.Identity.ID()}
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if s.lookLog, err = appendTo(filepath.Join(c.Dir, looksFile)); err != nil {
		return nil, err
	}
	if err := readSent(c.Dir, func(unit, arm int) {
		if i := c.cell(unit, arm); unit < l.units() && arm < len(c.Arms) && s.asked[i] < 255 {
			s.asked[i]++
		}
	}); err != nil {
		return nil, err
	}
	if s.sent, err = appendTo(filepath.Join(c.Dir, sentFile)); err != nil {
		return nil, err
	}
	return s, s.openJournal()
}

// openJournal opens the journal of the present generation: answers that a later
// look made void stay in the one before.
func (s *state) openJournal() (err error) {
	s.journal, err = journal.Open(journal.Config{Path: answersFile(s.c.Dir, generation(s.looks)), NoSync: s.c.NoSync, Hook: s.c.Hook})
	return err
}

func (s *state) close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	var errs []error
	if s.journal != nil {
		errs = append(errs, s.journal.Close())
	}
	for _, f := range []*os.File{s.sent, s.lookLog} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

const (
	sentFile  = "sent"
	looksFile = "looks.jsonl"
)

func answersFile(dir string, generation int) string {
	return filepath.Join(dir, fmt.Sprintf("answers-%d", generation))
}

// appendTo opens a file of lines for writing at its end, of which a crash may
// have cut the last line.
func appendTo(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", filepath.Base(name), err)
	}
	info, err := f.Stat()
	last := []byte{'\n'}
	if err == nil && info.Size() > 0 {
		_, err = f.ReadAt(last, info.Size()-1)
	}
	if err == nil && last[0] != '\n' {
		_, err = f.WriteString("\n")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", filepath.Base(name), err), f.Close())
	}
	return f, nil
}

// lines calls f for every whole line of a file that may not be there.
func lines(name string, f func([]byte) error) error {
	r, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", filepath.Base(name), err)
	}
	defer r.Close()
	br := bufio.NewReader(r)
	for {
		line, err := br.ReadBytes('\n')
		if err != nil {
			return nil // at the end, with or without a line that was cut
		}
		if line = bytes.TrimSpace(line); len(line) > 0 {
			if err := f(line); err != nil {
				return err
			}
		}
	}
}

// send notes that a request is about to be sent. The note survives the process:
// it is what tells after a kill which answers were paid for and never received.
func (s *state) send(unit, arm int) error {
	if _, err := fmt.Fprintf(s.sent, "%d %d\n", unit, arm); err != nil {
		return fmt.Errorf("note request: %w", err)
	}
	s.mu.Lock()
	if i := s.c.cell(unit, arm); s.asked[i] < 255 {
		s.asked[i]++
	}
	s.mu.Unlock()
	return nil
}

func readSent(dir string, f func(unit, arm int)) error {
	return lines(filepath.Join(dir, sentFile), func(line []byte) error {
		var unit, arm int
		if n, err := fmt.Sscanf(string(line), "%d %d", &unit, &arm); n == 2 && err == nil && unit >= 0 && arm >= 0 {
			f(unit, arm)
		}
		return nil
	})
}

// replay calls f for every answer of a folder that no look made void, and returns
// how many are void.
func replay(dir string, looks []Look, f func(suites.Record) error) (void int, err error) {
	v := validity(looks)
	for g := range generation(looks) + 1 {
		err := journal.Read(answersFile(dir, g), func(r suites.Record) error {
			if !v.valid(r) {
				void++
				return nil
			}
			return f(r)
		})
		if err != nil {
			return void, err
		}
	}
	return void, nil
}
