package bigquery

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	bq "google.golang.org/api/bigquery/v2"
)

func (s *Server) insertDataset(r *http.Request) (any, error) {
	var meta bq.Dataset
	if _, err := readBody(r, &meta); err != nil {
		return nil, err
	}
	return s.createDataset(r.PathValue("project"), meta)
}

func (s *Server) createDataset(project string, meta bq.Dataset) (*bq.Dataset, error) {
	if meta.DatasetReference == nil || !datasetName.MatchString(meta.DatasetReference.DatasetId) || len(meta.DatasetReference.DatasetId) > 1024 {
		return nil, errInvalid("Invalid dataset ID. Dataset IDs must be alphanumeric (plus underscores) and must be at most 1024 characters long.")
	}
	switch {
	case meta.DefaultTableExpirationMs != 0 || meta.DefaultPartitionExpirationMs != 0:
		return nil, errUnsupported("default expirations of a dataset")
	case meta.ExternalDatasetReference != nil || meta.LinkedDatasetSource != nil || meta.DefaultEncryptionConfiguration != nil || meta.DefaultCollation != "":
		return nil, errUnsupported("external, linked, encrypted or collated datasets")
	case meta.IsCaseInsensitive:
		return nil, errUnsupported("case-insensitive datasets")
	}
	id := datasetID{project, meta.DatasetReference.DatasetId}
	s.cat.mu.Lock()
	defer s.cat.mu.Unlock()
	if _, ok := s.cat.datasets[id]; ok {
		return nil, errDuplicate("Dataset %s:%s", id.project, id.dataset)
	}
	meta.Kind = "bigquery#dataset"
	meta.Id = id.project + ":" + id.dataset
	meta.DatasetReference.ProjectId = id.project
	if meta.Location == "" {
		meta.Location = defaultLocation
	}
	meta.CreationTime = s.now().UnixMilli()
	meta.LastModifiedTime = meta.CreationTime
	meta.Etag = fmt.Sprintf("dataset.%d", s.now().UnixNano())
	meta.Type = "DEFAULT"
	s.cat.datasets[id] = &dataset{meta: meta, tables: map[string]*table{}}
	return &meta, nil
}

func (s *Server) getDataset(r *http.Request) (any, error) {
	s.cat.mu.RLock()
	defer s.cat.mu.RUnlock()
	d, err := s.cat.dataset(datasetID{r.PathValue("project"), r.PathValue("dataset")})
	if err != nil {
		return nil, err
	}
	meta := d.meta
	return &meta, nil
}

func (s *Server) patchDataset(r *http.Request) (any, error) {
	var change bq.Dataset
	raw, err := readBody(r, &change)
	if err != nil {
		return nil, err
	}
	members, err := present(raw)
	if err != nil {
		return nil, err
	}
	s.cat.mu.Lock()
	defer s.cat.mu.Unlock()
	d, err := s.cat.dataset(datasetID{r.PathValue("project"), r.PathValue("dataset")})
	if err != nil {
		return nil, err
	}
	if err := checkIfMatch(r, d.meta.Etag); err != nil {
		return nil, err
	}
	for name := range members {
		switch name {
		case "description":
			d.meta.Description = change.Description
		case "friendlyName":
			d.meta.FriendlyName = change.FriendlyName
		case "labels":
			d.meta.Labels = patchLabels(d.meta.Labels, members[name], change.Labels)
		case "datasetReference", "kind", "etag":
		default:
			return nil, errUnsupported("changing %s of a dataset", name)
		}
	}
	d.meta.LastModifiedTime = s.now().UnixMilli()
	d.meta.Etag = fmt.Sprintf("dataset.%d", s.now().UnixNano())
	meta := d.meta
	return &meta, nil
}

func (s *Server) listDatasets(r *http.Request) (any, error) {
	s.cat.mu.RLock()
	defer s.cat.mu.RUnlock()
	var found []*bq.DatasetListDatasets
	for id, d := range s.cat.datasets {
		if id.project != r.PathValue("project") || d.hidden {
			continue
		}
		found = append(found, &bq.DatasetListDatasets{
			DatasetReference: d.meta.DatasetReference, Id: d.meta.Id, Kind: d.meta.Kind, Labels: d.meta.Labels, Location: d.meta.Location,
		})
	}
	slices.SortFunc(found, func(a, b *bq.DatasetListDatasets) int { return strings.Compare(a.Id, b.Id) })
	from, to, next, err := page(r, len(found))
	if err != nil {
		return nil, err
	}
	return &bq.DatasetList{Kind: "bigquery#datasetList", Datasets: found[from:to], NextPageToken: next}, nil
}

func (s *Server) deleteDataset(r *http.Request) (any, error) {
	id := datasetID{r.PathValue("project"), r.PathValue("dataset")}
	return nil, s.dropDataset(r.Context(), id, r.URL.Query().Get("deleteContents") == "true")
}

func (s *Server) dropDataset(ctx context.Context, id datasetID, contents bool) error {
	s.cat.mu.Lock()
	defer s.cat.mu.Unlock()
	d, err := s.cat.dataset(id)
	if err != nil {
		return err
	}
	if len(d.tables) > 0 && !contents {
		return &apiError{http.StatusBadRequest, "resourceInUse", fmt.Sprintf("Dataset %s:%s is still in use", id.project, id.dataset)}
	}
	for _, t := range s.cat.sortedTables(d) {
		if err := s.dropTable(ctx, d, t); err != nil {
			return err
		}
	}
	delete(s.cat.datasets, id)
	return nil
}
