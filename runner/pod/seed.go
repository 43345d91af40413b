package pod

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/repromill/repromill/results/atomicfile"
	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/runner/seed"
)

// Seeder is a pod that fills the cache. All fields but Node are needed.
type Seeder struct {
	Folder    Folder
	UID, Node string
	Client    func() (seed.Getter, error)
	Out       io.Writer
	Now       func() time.Time
}

// SeedMain is the command "worker seed FOLDER".
func SeedMain(args []string, client func() (seed.Getter, error)) int {
	if len(args) != 1 {
		fmt.Fprintln(os.Stderr, "usage: repromill worker seed FOLDER   (a pod calls it; FOLDER is the attempt on the run's volume)")
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	code, err := Seeder{Folder: Folder(args[0]), UID: os.Getenv("POD_UID"), Node: os.Getenv("NODE_NAME"), Client: client, Out: os.Stdout, Now: time.Now}.Run(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "repromill worker:", err)
	}
	return code
}

// Run seeds what the attempt says and returns the exit status. An end that another
// pod would come to as well is committed; everything else is for another pod to
// try, which goes on where this one stood.
func (s Seeder) Run(ctx context.Context) (int, error) {
	if s.UID == "" {
		return ExitRefused, errors.New("POD_UID is not set: the pod's template has to pass it on")
	}
	if _, done, err := s.Folder.Exit(); done || err != nil {
		return code(err), err
	}
	rec, err := s.Folder.Record()
	if err != nil {
		return ExitAgain, err
	}
	if rec.Attempt.Seed == nil {
		return ExitRefused, errors.New("the attempt seeds nothing")
	}
	dir := filepath.Join(s.Folder.path(dirPods), s.UID, filepath.Base(string(s.Folder)))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return ExitAgain, err
	}
	if err := atomicfile.Write(s.Folder.path(fileOwner), []byte(s.UID), atomicfile.Options{}); err != nil {
		return ExitAgain, err
	}
	out, err := os.OpenFile(filepath.Join(dir, "output"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return ExitAgain, err
	}
	defer out.Close()
	began := s.Now().UTC()
	st := runner.Status{Phase: runner.Running, Started: began, Since: began, Placement: runner.Placement{Node: s.Node}}
	if err := s.Folder.write(filepath.Join(dirPods, s.UID, fileSeen), st); err != nil {
		return ExitAgain, err
	}
	tell := func(what string) {
		fmt.Fprintf(io.MultiWriter(s.Out, out), "%s %s\n", s.Now().UTC().Format(time.TimeOnly), what)
	}
	client, err := s.Client()
	if err == nil {
		err = seed.Ensure(ctx, seed.Config{Dir: rec.Attempt.Seed.Dir, Client: client, Who: s.UID, Now: s.Now, Tell: tell}, rec.Attempt.Seed.Wants)
	}
	if err != nil {
		tell("gave up: " + err.Error())
	}
	var user interface{ UserError() string }
	now := s.Now().UTC()
	st.Since, st.Finished, st.ExitCode = now, now, 0
	st.Usage.WallSeconds = now.Sub(began).Seconds()
	switch {
	case err == nil:
		st.Phase = runner.Succeeded
	case ctx.Err() == nil && errors.As(err, &user) && !errors.Is(err, fs.ErrNotExist):
		st.Phase, st.Reason, st.ExitCode, st.Message = runner.Failed, runner.ReasonExit, 1, err.Error()+"; "+user.UserError()
	default:
		return ExitAgain, err
	}
	_, err = s.Folder.Conclude(st)
	return code(err), err
}
