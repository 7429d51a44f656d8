"""A small LMS with Moodle's manners, and a target for it. Not a product: it keeps port, driver and contract from thinking Canvas.

What it has of Moodle 4.1: one address for all functions, errors inside of status 200, changes that answer ``null`` whether or
not they did anything, people enrolled in courses under internal ids, one status for all roles of a person in a course, nothing
left of a removal, and no tolerance for two changes of one person at once.
"""
