"""Objects of the LMS that seats need: what they should be, the step that is next, and how far each has come."""
