package git

import (
	"sync"
	"time"
)

// meter merges the reports of a checkout's goroutines and thins them out.
type meter struct {
	to  func(Progress)
	now func() time.Time

	mu    sync.Mutex
	state Progress
	last  time.Time
}

const reportEvery = 100 * time.Millisecond

func newMeter(to func(Progress), now func() time.Time) *meter { return &meter{to: to, now: now} }

// report takes what p says into the state. A change of phase is always passed
// on.
func (m *meter) report(p Progress) {
	if m.to == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	turn := p.Phase != "" && p.Phase != m.state.Phase || p.Repo != "" && p.Repo != m.state.Repo
	if p.Repo != "" {
		m.state.Repo = p.Repo
	}
	if turn {
		m.state.Phase, m.state.Objects, m.state.Total, m.state.Files = p.Phase, 0, 0, 0
	}
	m.state.Bytes = max(m.state.Bytes, p.Bytes)
	if p.Total > 0 {
		m.state.Objects, m.state.Total = p.Objects, p.Total
	}
	m.state.Files = max(m.state.Files, p.Files)
	if now := m.now(); turn || now.Sub(m.last) >= reportEvery {
		m.last = now
		m.to(m.state)
	}
}
