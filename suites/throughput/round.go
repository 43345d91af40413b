package throughput

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/repromill/repromill/results/atomicfile"
	"github.com/repromill/repromill/results/schema"
	"github.com/repromill/repromill/suites/load/bench"
	"github.com/repromill/repromill/suites/servers"
)

// Rows are what one round adds to the tables, without what the run says of itself.
type Rows struct {
	Requests []schema.RequestRow `json:"requests"`
	Metrics  []schema.MetricRow  `json:"metrics"`
	Servers  []schema.ServerRow  `json:"servers"`
}

// round is what is kept of a round. It is written as a whole: a round that was
// interrupted is measured again, as its servers have to be started again.
type round struct {
	Rows
	Spend
	Turn      *Turn              `json:"turn,omitempty"`    // of which it is all that is kept, nil for all of the round
	Lost      int                `json:"lost,omitempty"`    // starts
	Stopped   string             `json:"stopped,omitempty"` // by a bound; nothing else is kept then
	Blocks    []bench.Observed   `json:"blocks"`
	Instances []servers.Instance `json:"instances"`
	Simulated bool               `json:"simulated"`
	Warnings  []string           `json:"warnings"`
}

// Rows calls f for the rows of every round that a result rests on.
func (b *Bench) Rows(j Job, res Result, f func(Rows) error) error {
	for n := range res.Rounds {
		r, have, err := readRound(j.Dir, n)
		if err != nil {
			return err
		}
		if !have {
			return fmt.Errorf("read round %d of suite %s: it is not there", n+1, j.Suite.ID)
		}
		for i := range r.Servers {
			for _, in := range r.Instances {
				if row := &r.Servers[i]; in.Arm == row.Arm && in.Endpoint == row.Endpoint {
					in.Facts.Describe(row)
				}
			}
		}
		if err := f(r.Rows); err != nil {
			return err
		}
	}
	return nil
}

func roundFile(dir string, n int) string {
	return filepath.Join(dir, fmt.Sprintf("round-%03d.json.gz", n))
}

func (m *measuring) keep(n int) error {
	if err := write(roundFile(m.Dir, n), m.now, m.Hook, "throughput:round:"); err != nil {
		return fmt.Errorf("write round %d: %w", n+1, err)
	}
	return nil
}

func readRound(dir string, n int) (r round, have bool, err error) {
	r, err = read(roundFile(dir, n))
	if errors.Is(err, fs.ErrNotExist) {
		return r, false, nil
	}
	if err != nil {
		return r, false, fmt.Errorf("read round %d: %w", n+1, err)
	}
	return r, true, nil
}

func write(name string, r round, hook func(string), point string) error {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	err := json.NewEncoder(z).Encode(r)
	if err = errors.Join(err, z.Close()); err != nil {
		return err
	}
	hook(point + "before")
	if err := atomicfile.Write(name, b.Bytes(), atomicfile.Options{}); err != nil {
		return err
	}
	hook(point + "after")
	return nil
}

func read(name string) (r round, err error) {
	f, err := os.Open(name)
	if err != nil {
		return r, err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err == nil {
		err = json.NewDecoder(z).Decode(&r)
	}
	return r, err
}
