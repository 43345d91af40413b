package runner

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner/server"
	"github.com/repromill/repromill/suites/servers"
)

// fleet is the servers that this driver started for the suites of its run. They
// are up from the first suite that needs them to the end of the last, and never
// longer than the driver.
type fleet struct {
	*drive
	host *server.Host
	up   map[string]servers.Server // by the name of the arm
	list []servers.Instance
}

// starter is what starts servers for a suite; nil where this program is not set
// up to.
func (f *fleet) starter(stage string) (*server.Host, error) {
	if len(f.cfg.Servers.Self) == 0 {
		return nil, nil
	}
	if f.host != nil {
		return f.host, nil
	}
	c := f.cfg.Servers
	if c.Dir == "" {
		c.Dir = filepath.Join(f.cfg.Dir, "servers")
	}
	c.Logs = filepath.Join(f.dir, "servers")
	c.How, c.Now, c.Hook = f.serving().How, f.cfg.Now, f.cfg.Hook
	var mu sync.Mutex
	told := map[string]time.Time{}
	c.Progress = func(arm, doing string) {
		mu.Lock()
		defer mu.Unlock()
		now := f.cfg.Now()
		if now.Sub(told[arm]) < 2*time.Second {
			return
		}
		told[arm] = now
		data := map[string]any{"message": fmt.Sprintf("starting the server of arm %s: %s", arm, doing), "arm": arm}
		_ = f.cfg.Store.Append(context.Background(), f.run.ID, event(stage, Progress, data)) // what is lost is only seen later
	}
	host, err := server.New(c)
	f.host = host
	return host, err
}

// timed is what starts servers for a suite that times their answers; nil where
// starter is.
func (f *fleet) timed(stage string) (servers.Starter, error) {
	host, err := f.starter(stage)
	if host == nil || err != nil {
		return nil, err
	}
	return host.Timed(), nil
}

// serve makes sure that the arms of a suite are served, side by side.
func (f *fleet) serve(ctx context.Context, s spec.Suite) (map[string]servers.Server, []servers.Instance, error) {
	at := f.serving()
	var need []spec.Arm
	for _, a := range s.Arms {
		if at.How(a) != "" && f.up[a.Name] == nil {
			need = append(need, a)
		}
	}
	if len(need) == 0 {
		return f.up, f.of(s), nil
	}
	starter, err := f.starter(StageSuite(s.ID))
	if err != nil {
		return nil, nil, err
	}
	if starter == nil {
		return nil, nil, &UserError{"this program is not set up to start servers", "start them, and give --endpoint ARM=URL"}
	}
	// Side by side: large models take minutes to load.
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	got, errs := make([]servers.Server, len(need)), make([]error, len(need))
	var wg sync.WaitGroup
	for i, a := range need {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if got[i], errs[i] = starter.Start(ctx, a); errs[i] != nil {
				stop(errs[i]) // one that is missing makes the others useless
			}
		}()
	}
	wg.Wait()
	if f.up == nil {
		f.up = map[string]servers.Server{}
	}
	for i, srv := range got {
		if errs[i] != nil {
			continue
		}
		f.up[need[i].Name] = srv
		in := servers.Instance{Arm: need[i].Name, Endpoint: srv.Endpoint(), Began: f.cfg.Now().UTC(), Facts: srv.Facts()}
		if in.Identity, err = srv.Identity(ctx); err != nil && ctx.Err() == nil {
			return nil, nil, err
		}
		f.list = append(f.list, in)
	}
	if cause := context.Cause(ctx); cause != nil { // the first error, and not what it brought about
		return nil, nil, cause
	}
	return f.up, f.of(s), nil
}

// of are the servers of a suite's arms.
func (f *fleet) of(s spec.Suite) (out []servers.Instance) {
	for _, a := range s.Arms {
		for _, in := range f.list {
			if in.Arm == a.Name {
				out = append(out, in)
			}
		}
	}
	return out
}

// ended is the error of a server that is no more, nil if all are there.
func (f *fleet) ended(ctx context.Context) error {
	for _, srv := range f.up {
		_, err := srv.Identity(context.WithoutCancel(ctx))
		var e *servers.EndedError
		if errors.As(err, &e) {
			return e
		}
	}
	return nil
}

// stop ends all servers, also when the run's own context has ended.
func (f *fleet) stop(ctx context.Context) error {
	errs := make(chan error, len(f.up))
	for _, srv := range f.up {
		go func() { errs <- srv.Stop(context.WithoutCancel(ctx)) }()
	}
	var all []error
	for range f.up {
		all = append(all, <-errs)
	}
	f.up, f.list = nil, nil
	return errors.Join(all...)
}
