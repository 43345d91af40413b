//go:build linux && cluster

package main

import (
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"
)

// looker looks at a suite again and again while it runs, as somebody does who wants
// to know which of its shards is where and what its servers say.
type looker struct {
	stop chan struct{}
	done sync.WaitGroup

	run, shards, status, server, unknown string // what was seen
}

func (s site) looker() *looker {
	l := &looker{stop: make(chan struct{})}
	l.done.Go(func() {
		for {
			select {
			case <-l.stop:
				return
			case <-time.After(500 * time.Millisecond):
				s.look(l)
			}
		}
	})
	return l
}

func (s site) look(l *looker) {
	if l.run == "" {
		var runs []struct{ ID string }
		out, err := s.command("status", "--json").Output()
		if err != nil || json.Unmarshal(out, &runs) != nil || len(runs) == 0 {
			return
		}
		l.run = runs[0].ID
	}
	if l.shards == "" {
		var now struct {
			Jobs []struct {
				Blocks struct {
					Of   int
					Live []struct {
						Shard      int
						Containers []struct{ Name, State string }
					}
				}
			}
		}
		out, err := s.command("status", l.run, "--json").Output()
		if err == nil && json.Unmarshal(out, &now) == nil && len(now.Jobs) == 1 && now.Jobs[0].Blocks.Of == 6 && len(now.Jobs[0].Blocks.Live) == 1 {
			if b := now.Jobs[0].Blocks.Live[0]; b.Shard > 0 && len(b.Containers) == 3 && b.Containers[0].Name == "server-fp8" && b.Containers[2].Name == "client" {
				l.shards = string(out)
			}
		}
	}
	if l.status == "" {
		if out, err := s.command("status", l.run).Output(); err == nil && strings.Contains(string(out), " of 6, ") && strings.Contains(string(out), "; client ") {
			l.status = string(out)
		}
	}
	if l.server == "" {
		if out, err := s.command("logs", l.run, "--container", "server-fp8").Output(); err == nil && strings.Contains(string(out), "serves org/tiny-FP8") {
			l.server = string(out)
		}
	}
	if l.unknown == "" {
		if out, err := s.command("logs", l.run, "--container", "none").CombinedOutput(); err != nil && strings.Contains(string(out), "use one of client, server-fp8, server-nvfp4") {
			l.unknown = string(out)
		}
	}
}

// check is called when the run has ended.
func (l *looker) check(t *testing.T, s site) {
	t.Helper()
	close(l.stop)
	l.done.Wait()
	for what, seen := range map[string]string{"shards in `status --json`": l.shards, "shards in `status`": l.status, "what a server printed": l.server, "which containers there are": l.unknown} {
		if seen == "" {
			t.Errorf("while the suite ran nobody could see %s", what)
		}
	}
	out, err := s.command("watch", l.run).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "suite/mmlu-pro: ") {
		t.Errorf("who follows it is not told where its Job stands: %v\n%s", err, out)
	}
}
