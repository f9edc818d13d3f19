package tick

// Check is a permanent error, listing those that exist, if the message names a pipeline
// or a table that there is not.
func (d *Dispatcher) Check(m Message) error {
	var names []string
	known := m.Pipeline == ""
	for _, p := range d.Pipelines {
		names = append(names, p.Name)
		known = known || p.Name == m.Pipeline
	}
	if !known {
		return Unknown("pipeline", m.Pipeline, names)
	}
	return d.CheckTable(m)
}
