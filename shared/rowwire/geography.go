package rowwire

import (
	"bytes"
	"strconv"
)

// wgs84 is how ST_AsEWKT begins a shape of the coordinate system that GEOGRAPHY is in.
const wgs84 = "SRID=4326;"

// readGeography returns the well-known text in the extended one of PostGIS, which writes Z and M as further numbers of
// a coordinate. GEOGRAPHY has points, lines, polygons and collections of them. (BigQuery: ST_GEOGFROMTEXT.)
func readGeography(v []byte) (text []byte, reason Reason) {
	text, ok := bytes.CutPrefix(v, []byte(wgs84))
	if !ok {
		return nil, GeographySRID
	}
	numbers := 0 // of the coordinate begun
	for i := 0; i < len(text); {
		ch := text[i]
		end := i + 1
		switch {
		case ch >= 'A' && ch <= 'Z' || ch >= 'a' && ch <= 'z':
			for end < len(text) && (text[end] >= 'A' && text[end] <= 'Z' || text[end] >= 'a' && text[end] <= 'z') {
				end++
			}
			if !flatShape(string(text[i:end])) {
				return nil, GeographyShape
			}
		case ch == '-' || ch == '.' || ch >= '0' && ch <= '9':
			for end < len(text) && isNumberByte(text[end]) {
				end++
			}
			if numbers++; numbers > 2 {
				return nil, GeographyShape
			}
			if reason := checkDegrees(text[i:end], numbers); reason != 0 {
				return nil, reason
			}
		case ch == ',' || ch == ')':
			if numbers == 1 {
				return nil, GeographyShape
			}
			numbers = 0
		case ch == ' ' || ch == '(':
		default:
			return nil, GeographyShape
		}
		i = end
	}
	return text, 0
}

func flatShape(word string) bool {
	switch word {
	case "POINT", "LINESTRING", "POLYGON", "MULTIPOINT", "MULTILINESTRING", "MULTIPOLYGON", "GEOMETRYCOLLECTION", "EMPTY":
		return true
	}
	return false
}

// checkDegrees checks the first or second number of a coordinate: longitude, latitude.
func checkDegrees(text []byte, ordinal int) Reason {
	limit := 180.0
	if ordinal == 2 {
		limit = 90
	}
	degrees, err := strconv.ParseFloat(string(text), 64)
	if err != nil {
		return GeographyShape
	}
	if degrees < -limit || degrees > limit {
		return GeographyRange
	}
	return 0
}
